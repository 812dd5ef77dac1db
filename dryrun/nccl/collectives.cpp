// The operations: bytes over the links in virtual time, and what they leave in memory.
//
// Within ncclGroupStart and ncclGroupEnd, sends and receives happen at once: the links carry the
// longer of both directions. Collectives follow each other.
#include <algorithm>
#include <vector>

#include "dryrun/core/simulator.h"
#include "dryrun/core/stream.h"
#include "dryrun/nccl/communicator.h"
#include "dryrun/nccl/values.h"

using namespace ebbtide::dryrun;

namespace {

// One side of a transfer between two ranks.
struct Transfer {
  ncclComm_t comm;
  cudaStream_t stream;
  int peer;
  bool is_send;
  const void* source;
  void* target;
  std::size_t bytes;
};

struct Group {
  int depth = 0;
  std::vector<Transfer> transfers;
};

Group& group() {
  static thread_local Group instance;
  return instance;
}

void charge(ncclComm_t comm, cudaStream_t stream, Pattern pattern, std::size_t bytes,
            const char* name) {
  Simulator& simulator = Simulator::instance();
  if (simulator.device_count() == 0) return;
  const CollectiveCost cost =
      cost_of(pattern, static_cast<double>(bytes), comm->place, simulator.model().speed);
  simulator.timeline().communicate(clock_of(stream), cost, name);
}

bool is_on_same_node(const ncclComm& comm, int peer) {
  const int devices = Simulator::instance().model().speed.devices_per_node;
  const auto node_of = [&](int rank) {
    return comm.members[static_cast<std::size_t>(rank)] / devices;
  };
  return node_of(peer) == node_of(comm.rank);
}

// The transfers of one group on one stream, all at once.
void carry(const std::vector<Transfer>& transfers) {
  struct Bytes {
    std::size_t sent = 0, received = 0;
    double most() const { return static_cast<double>(std::max(sent, received)); }
  };
  Bytes near, far;
  for (const Transfer& transfer : transfers) {
    if (transfer.peer == transfer.comm->rank) continue;
    Bytes& bytes = is_on_same_node(*transfer.comm, transfer.peer) ? near : far;
    (transfer.is_send ? bytes.sent : bytes.received) += transfer.bytes;
  }
  const DeviceSpeed& speed = Simulator::instance().model().speed;
  const CollectiveCost inside = cost_of(Pattern::kPointToPoint, near.most(), {2, 1, 2}, speed);
  const CollectiveCost across = cost_of(Pattern::kPointToPoint, far.most(), {2, 2, 1}, speed);
  CollectiveCost cost = across.transfer > inside.transfer ? across : inside;
  cost.sent_bytes = static_cast<double>(near.sent + far.sent);
  Simulator::instance().timeline().communicate(clock_of(transfers.front().stream), cost,
                                               "send and receive");
}

// Every rank holds the same: what a peer sends is what this rank would send to itself.
void exchange_values(const std::vector<Transfer>& transfers) {
  const auto own = std::ranges::find_if(transfers, [](const Transfer& transfer) {
    return transfer.is_send && transfer.peer == transfer.comm->rank;
  });
  for (const Transfer& transfer : transfers) {
    if (transfer.is_send) continue;
    if (own != transfers.end() && own->bytes == transfer.bytes) {
      copy_values(transfer.target, own->source, transfer.bytes);
    } else {
      forget_values(transfer.target, transfer.bytes);
    }
  }
}

void finish(std::vector<Transfer> transfers) {
  while (!transfers.empty()) {
    const cudaStream_t stream = transfers.front().stream;
    const auto others =
        std::stable_partition(transfers.begin(), transfers.end(),
                              [&](const Transfer& transfer) { return transfer.stream == stream; });
    const std::vector<Transfer> together(transfers.begin(), others);
    transfers.erase(transfers.begin(), others);
    if (Simulator::instance().device_count() > 0) carry(together);
    exchange_values(together);
  }
}

ncclResult_t add(const Transfer& transfer) {
  if (transfer.peer < 0 || transfer.peer >= transfer.comm->place.ranks) return ncclInvalidArgument;
  Group& open = group();
  if (open.depth == 0) {
    finish({transfer});
  } else {
    open.transfers.push_back(transfer);
  }
  return ncclSuccess;
}

char* at(void* buffer, std::size_t index, std::size_t bytes) {
  return static_cast<char*>(buffer) + index * bytes;
}
const char* at(const void* buffer, std::size_t index, std::size_t bytes) {
  return static_cast<const char*>(buffer) + index * bytes;
}

}  // namespace

extern "C" {

ncclResult_t ncclGroupStart() {
  ++group().depth;
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
  Group& open = group();
  if (open.depth == 0) return ncclInvalidUsage;
  if (--open.depth == 0) finish(std::move(open.transfers));
  if (open.depth == 0) open.transfers.clear();
  return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void* source, void* target, std::size_t count, ncclDataType_t type,
                           ncclRedOp_t operation, ncclComm_t comm, cudaStream_t stream) {
  const std::size_t bytes = count * size_of(type);
  charge(comm, stream, Pattern::kAllReduce, bytes, "all-reduce");
  copy_values(target, source, bytes);
  reduce_values(target, count, type, operation, comm->place.ranks);
  return ncclSuccess;
}

// A ring's reduction to one rank sends what a broadcast sends, the other way.
ncclResult_t ncclReduce(const void* source, void* target, std::size_t count, ncclDataType_t type,
                        ncclRedOp_t operation, int root, ncclComm_t comm, cudaStream_t stream) {
  const std::size_t bytes = count * size_of(type);
  charge(comm, stream, Pattern::kBroadcast, bytes, "reduce");
  if (comm->rank != root) return ncclSuccess;
  copy_values(target, source, bytes);
  reduce_values(target, count, type, operation, comm->place.ranks);
  return ncclSuccess;
}

ncclResult_t ncclBroadcast(const void* source, void* target, std::size_t count, ncclDataType_t type,
                           int, ncclComm_t comm, cudaStream_t stream) {
  const std::size_t bytes = count * size_of(type);
  charge(comm, stream, Pattern::kBroadcast, bytes, "broadcast");
  copy_values(target, source, bytes);
  return ncclSuccess;
}
ncclResult_t ncclBcast(void* buffer, std::size_t count, ncclDataType_t type, int root,
                       ncclComm_t comm, cudaStream_t stream) {
  return ncclBroadcast(buffer, buffer, count, type, root, comm, stream);
}

ncclResult_t ncclAllGather(const void* source, void* target, std::size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream) {
  const std::size_t bytes = count * size_of(type);
  const auto ranks = static_cast<std::size_t>(comm->place.ranks);
  charge(comm, stream, Pattern::kAllGather, bytes * ranks, "all-gather");
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    copy_values(at(target, rank, bytes), source, bytes);
  }
  return ncclSuccess;
}

ncclResult_t ncclReduceScatter(const void* source, void* target, std::size_t count,
                               ncclDataType_t type, ncclRedOp_t operation, ncclComm_t comm,
                               cudaStream_t stream) {
  const std::size_t bytes = count * size_of(type);
  charge(comm, stream, Pattern::kReduceScatter, bytes * static_cast<std::size_t>(comm->place.ranks),
         "reduce-scatter");
  copy_values(target, at(source, static_cast<std::size_t>(comm->rank), bytes), bytes);
  reduce_values(target, count, type, operation, comm->place.ranks);
  return ncclSuccess;
}

ncclResult_t ncclAlltoAll(const void* source, void* target, std::size_t count, ncclDataType_t type,
                          ncclComm_t comm, cudaStream_t stream) {
  const std::size_t bytes = count * size_of(type);
  const auto ranks = static_cast<std::size_t>(comm->place.ranks);
  charge(comm, stream, Pattern::kAllToAll, bytes * ranks, "all-to-all");
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    copy_values(at(target, rank, bytes), at(source, static_cast<std::size_t>(comm->rank), bytes),
                bytes);
  }
  return ncclSuccess;
}

ncclResult_t ncclSend(const void* source, std::size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream) {
  return add({comm, stream, peer, true, source, nullptr, count * size_of(type)});
}
ncclResult_t ncclRecv(void* target, std::size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream) {
  return add({comm, stream, peer, false, nullptr, target, count * size_of(type)});
}

// Results of an operation of the program's own are not worked out.
ncclResult_t ncclRedOpCreatePreMulSum(ncclRedOp_t* operation, void*, ncclDataType_t,
                                      ncclScalarResidence_t, ncclComm_t) {
  *operation = ncclNumOps;
  return ncclSuccess;
}

}  // extern "C"
