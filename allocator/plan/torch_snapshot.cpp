#include "allocator/plan/torch_snapshot.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <set>
#include <unordered_map>

#include "allocator/plan/pickle.h"

namespace ebbtide {
namespace {

constexpr Bytes kGranule{512};  // torch's smallest block
constexpr std::int64_t kMaxSize = std::int64_t{1} << 60;
constexpr std::int64_t kMaxDevice = 4095;

std::string hexadecimal(std::int64_t address) {
  std::array<char, 16> text{};
  const auto end =
      std::to_chars(text.data(), text.data() + text.size(), static_cast<std::uint64_t>(address), 16)
          .ptr;
  return {text.data(), end};
}

// Reads what the schema promises of a value, or says which value breaks it. The first fault stays.
class SnapshotWalk {
 public:
  SnapshotWalk(std::size_t bytes, const std::string& source)
      : source_(source), visits_left_(bytes / kBytesOfVisit + 64) {}

  const std::optional<Error>& fault() const { return fault_; }
  void fail(const PickleValue& value, const std::string& reason) {
    if (fault_) return;
    fault_ = Error{ErrorCode::kInvalidArgument,
                   source_ + ": byte " + std::to_string(value.position()) + ": " + reason};
  }

  // A list's items, of which each is going to be visited: shared lists must not multiply.
  std::vector<PickleValue> list(const PickleValue& value, const std::string& name) {
    auto items = value.list();
    if (!items) fail(value, name + " is not a list");
    if (fault_) return {};
    if (items->size() > visits_left_) {
      fail(value, name + " repeats its items more often than any snapshot does");
      return {};
    }
    visits_left_ -= items->size();
    return std::move(*items);
  }
  std::vector<PickleValue> list_at(const PickleValue& value, const std::string& key) {
    const auto found = value.at(key);
    if (found) return list(*found, key);
    fail(value, "'" + key + "' is missing: this is no memory snapshot of torch");
    return {};
  }
  std::int64_t integer_at(const PickleValue& value, const std::string& key) {
    const auto found = value.at(key);
    const auto number = found ? found->integer() : std::nullopt;
    if (!number) fail(found.value_or(value), "'" + key + "' is not an integer of 64 bits");
    return number.value_or(0);
  }
  // The size as torch rounds it.
  Bytes size_of(const PickleValue& value, std::int64_t size) {
    if (size >= 0 && size <= kMaxSize) return align_up(Bytes{size}, kGranule);
    fail(value, "size " + std::to_string(size) + " is not between 0 and 2^60");
    return {};
  }
  std::string_view text_at(const PickleValue& value, std::string_view key) {
    const auto found = value.at(key);
    const auto text = found ? found->text() : std::nullopt;
    if (!text) fail(found.value_or(value), std::string(key) + " is not a text");
    return text.value_or("");
  }

 private:
  // Fewer bytes than any trace entry or block takes.
  static constexpr std::size_t kBytesOfVisit = 12;

  const std::string& source_;
  std::size_t visits_left_;
  std::optional<Error> fault_;
};

// A block that is in use in a segment at the end of the trace.
struct FinalBlock {
  std::int64_t device;
  std::int64_t address;
  Bytes size;
};

std::vector<FinalBlock> blocks_in_use(SnapshotWalk& walk, const PickleValue& root) {
  std::vector<FinalBlock> found;
  for (const PickleValue& segment : walk.list_at(root, "segments")) {
    const std::int64_t device = walk.integer_at(segment, "device");
    if (device < 0 || device > kMaxDevice) walk.fail(segment, "'device' is no index of a device");
    std::int64_t address = walk.integer_at(segment, "address");
    for (const PickleValue& block : walk.list_at(segment, "blocks")) {
      const std::int64_t size = walk.integer_at(block, "size");
      const Bytes whole = walk.size_of(block, size);
      // Older snapshots have neither key.
      const auto own_address = block.at("address");
      if (own_address) address = own_address->integer().value_or(address);
      const auto requested = block.at("requested_size");
      const std::int64_t used = requested ? requested->integer().value_or(0) : 0;
      if (walk.text_at(block, "state") == "active_allocated") {
        found.push_back({device, address, used > 0 ? walk.size_of(block, used) : whole});
      }
      if (walk.fault()) return {};
      address = static_cast<std::int64_t>(static_cast<std::uint64_t>(address) +
                                          static_cast<std::uint64_t>(size));
    }
  }
  return found;
}

// Follows one device's trace from its begin to its end.
class TraceReplay {
 public:
  TraceReplay(SnapshotWalk& walk, SnapshotProblem& out) : walk_(walk), out_(out) {}

  void event(std::int64_t tick, const PickleValue& entry) {
    const std::string_view action = walk_.text_at(entry, "action");
    if (action != "alloc" && action != "free_requested") return;
    const std::int64_t address = walk_.integer_at(entry, "addr");
    const Bytes size = walk_.size_of(entry, walk_.integer_at(entry, "size"));
    if (walk_.fault()) return;
    if (action == "alloc") {
      const auto stream = entry.at("stream");
      streams_.insert(stream ? stream->integer().value_or(0) : 0);
      end_of(address, tick);  // a free that the trace has lost
      live_[address] = out_.named.ids.size();
      add(std::to_string(tick), size, {Tick{tick}, Tick{tick + 1}});
      seen_.insert(address);
    } else if (live_.contains(address)) {
      end_of(address, tick);
    } else if (seen_.insert(address).second) {
      add("before-" + hexadecimal(address), size, {Tick{0}, Tick{tick}});
    }
  }

  void finish(std::int64_t tick, const std::vector<FinalBlock>& blocks) {
    for (const FinalBlock& block : blocks) {
      if (block.device == out_.device && seen_.insert(block.address).second) {
        add("before-" + hexadecimal(block.address), block.size, {Tick{0}, Tick{tick}});
      }
    }
    for (const auto& [address, index] : live_) set_death(index, tick);
    out_.streams = std::max<std::size_t>(streams_.size(), 1);
  }

 private:
  void end_of(std::int64_t address, std::int64_t tick) {
    const auto found = live_.find(address);
    if (found == live_.end()) return;
    set_death(found->second, tick);
    live_.erase(found);
  }
  void set_death(std::size_t index, std::int64_t tick) {
    LiveRanges& live = out_.named.problem.buffers[index].live;
    live = {{live.front().birth, Tick{tick}}};
  }
  void add(std::string id, Bytes size, Interval life) {
    if (!life.is_valid()) return;  // freed by the first entry
    out_.named.problem.buffers.push_back({size, {life}, kGranule, std::nullopt});
    out_.named.ids.push_back(std::move(id));
  }

  SnapshotWalk& walk_;
  SnapshotProblem& out_;
  std::unordered_map<std::int64_t, std::size_t> live_;  // address to index of the buffer
  std::set<std::int64_t> seen_;                         // addresses whose state is known
  std::set<std::int64_t> streams_;
};

// The device asked for, or the only one that has anything; else says what there is.
Result<int> choose_device(const std::vector<std::vector<PickleValue>>& traces,
                          const std::vector<FinalBlock>& blocks, const std::string& source,
                          std::optional<int> wanted) {
  std::set<std::int64_t> found;
  for (std::size_t i = 0; i < traces.size(); ++i) {
    if (!traces[i].empty()) found.insert(static_cast<std::int64_t>(i));
  }
  for (const FinalBlock& block : blocks) found.insert(block.device);
  if (wanted && found.contains(*wanted)) return *wanted;
  if (!wanted && found.size() == 1) return static_cast<int>(*found.begin());
  std::string list;
  std::size_t shown = 0;
  for (const std::int64_t device : found) {
    if (++shown > 16) break;
    if (!list.empty()) list += ", ";
    list += std::to_string(device);
  }
  const std::string reason =
      found.empty() ? "holds no allocations"
      : wanted      ? "has nothing of device " + std::to_string(*wanted) + ", only of " + list
                    : "has allocations of devices " + list + ": choose one with --device";
  return Error{ErrorCode::kInvalidArgument, source + ": " + reason};
}

}  // namespace

bool looks_like_pickle(std::string_view bytes) { return bytes.starts_with('\x80'); }

Result<SnapshotProblem> read_torch_snapshot(std::string_view bytes, const std::string& source,
                                            std::optional<int> device) {
  const auto pickle = Pickle::read(bytes, source);
  if (!pickle.ok()) return pickle.error();
  const PickleValue root = pickle.value().root();
  SnapshotWalk walk(bytes.size(), source);
  const std::vector<FinalBlock> blocks = blocks_in_use(walk, root);
  std::vector<std::vector<PickleValue>> traces;
  for (const PickleValue& trace : walk.list_at(root, "device_traces")) {
    traces.push_back(walk.list(trace, "a device's trace"));
  }
  if (walk.fault()) return *walk.fault();
  const auto chosen = choose_device(traces, blocks, source, device);
  if (!chosen.ok()) return chosen.error();

  SnapshotProblem out;
  out.device = chosen.value();
  TraceReplay replay(walk, out);
  std::int64_t tick = 0;
  const auto index = static_cast<std::size_t>(out.device);
  if (index < traces.size()) {
    for (const PickleValue& entry : traces[index]) replay.event(tick++, entry);
  }
  replay.finish(std::max<std::int64_t>(tick, 1), blocks);
  if (walk.fault()) return *walk.fault();
  const Status checked = check(out.named.problem);
  if (!checked.ok()) return Error{checked.error().code, source + ": " + checked.error().message};
  return out;
}

}  // namespace ebbtide
