// Communicators: a rank's place in a group of which no other rank exists.
//
// Which ranks of the program a group consists of is not in NCCL's calls. `ebbtide dryrun --ranks`
// has it written where a configuration names a network plugin (python_shim/ebbtide/_lone_rank.py):
// "0,8,16". Without it they are counted from 0.
#include "dryrun/nccl/communicator.h"

#include <charconv>
#include <cstring>
#include <numeric>
#include <string_view>

#include "dryrun/core/simulator.h"

using namespace ebbtide::dryrun;

namespace {

// "0,8,16"; empty where that is not what the text is.
std::vector<int> ranks_of(std::string_view text) {
  std::vector<int> ranks;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at < end) {
    int rank = 0;
    const auto [rest, code] = std::from_chars(at, end, rank);
    if (code != std::errc{} || rank < 0 || (rest < end && *rest != ',')) return {};
    ranks.push_back(rank);
    at = rest < end ? rest + 1 : end;
  }
  return ranks;
}

std::vector<int> members_of(const ncclConfig_t* config, int otherwise) {
  std::vector<int> members;
  if (config != nullptr && config->netName != nullptr) members = ranks_of(config->netName);
  if (!members.empty()) return members;
  members.resize(static_cast<std::size_t>(otherwise));
  std::iota(members.begin(), members.end(), 0);
  return members;
}

ncclResult_t make(ncclComm_t* made, int rank, std::vector<int> members, int device = current_device()) {
  Simulator& simulator = Simulator::instance();
  if (rank < 0 || rank >= static_cast<int>(members.size())) return ncclInvalidArgument;
  ++simulator.counters().communicators;
  const GroupPlace place = place_of(members, simulator.model().speed.devices_per_node);
  *made = new ncclComm{rank, device, std::move(members), place};
  return ncclSuccess;
}

}  // namespace

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}
ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  std::memset(id, 0, sizeof *id);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int ranks, ncclUniqueId, int rank,
                                    ncclConfig_t* config) {
  std::vector<int> members = members_of(config, ranks);
  if (static_cast<int>(members.size()) != ranks) members = members_of(nullptr, ranks);
  return make(comm, rank, std::move(members));
}
ncclResult_t ncclCommInitRank(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank) {
  return ncclCommInitRankConfig(comm, ranks, id, rank, nullptr);
}
ncclResult_t ncclCommInitRankScalable(ncclComm_t* comm, int ranks, int rank, int, ncclUniqueId* ids,
                                      ncclConfig_t* config) {
  return ncclCommInitRankConfig(comm, ranks, *ids, rank, config);
}
// All of them in this process, one for each device (torch.nn.DataParallel).
ncclResult_t ncclCommInitAll(ncclComm_t* comms, int count, const int* devices) {
  for (int rank = 0; rank < count; ++rank) {
    const int device = devices == nullptr ? rank : devices[rank];
    if (const ncclResult_t status = make(&comms[rank], rank, members_of(nullptr, count), device); status != ncclSuccess) {
      return status;
    }
  }
  return ncclSuccess;
}
// How many ranks have this colour only the others could tell: without a list it is all of them.
ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t* made,
                           ncclConfig_t* config) {
  *made = nullptr;
  if (color == NCCL_SPLIT_NOCOLOR) return ncclSuccess;
  return make(made, key, members_of(config, comm->place.ranks));
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  Timeline& timeline = Simulator::instance().timeline();
  timeline.hold_host(timeline.end_of_device(comm->device));
  return ncclSuccess;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  delete comm;
  return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t comm) { return ncclCommDestroy(comm); }

ncclResult_t ncclCommCount(const ncclComm_t comm, int* count) {
  *count = comm->place.ranks;
  return ncclSuccess;
}
ncclResult_t ncclCommUserRank(const ncclComm_t comm, int* rank) {
  *rank = comm->rank;
  return ncclSuccess;
}
ncclResult_t ncclCommCuDevice(const ncclComm_t comm, int* device) {
  *device = comm->device;
  return ncclSuccess;
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t* error) {
  *error = ncclSuccess;
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclSuccess           ? "no error"
         : result == ncclInvalidArgument ? "invalid argument"
                                         : "not simulated, see the line above";
}
const char* ncclGetLastError(ncclComm_t) { return ""; }

// Called by the generated stand-ins of everything that is not simulated.
int ebbtide_dryrun_refuse_nccl(const char* function) {
  report_unimplemented(function);
  return ncclInvalidUsage;
}

}  // extern "C"
