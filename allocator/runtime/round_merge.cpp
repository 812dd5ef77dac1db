#include "allocator/runtime/round_merge.h"

#include <algorithm>
#include <utility>

#include "allocator/runtime/alignment.h"

namespace ebbtide {
namespace {

constexpr std::size_t kMaxShapes = 6;
constexpr Tick kNever{-1};  // of a node that has not lived yet

Tick tick(std::size_t index) { return Tick{static_cast<std::int64_t>(index)}; }

bool is_constant_size(const Round& round, Bytes size) {
  return std::binary_search(round.constant_sizes.begin(), round.constant_sizes.end(), size);
}

void drop_smallest_shape(Program& program) {
  std::vector<Bytes> totals(program.shapes);
  for (const Node& node : program.nodes) {
    for (std::size_t k = 0; k < program.shapes; ++k) totals[k] += node.sizes[k];
  }
  const auto least = std::min_element(totals.begin(), totals.end()) - totals.begin();
  for (Node& node : program.nodes) node.sizes.erase(node.sizes.begin() + least);
  --program.shapes;
}

// Adds the round's sizes (0 where it lacks the node) as a shape, unless the program has that shape.
void add_shape(Program& program, const std::vector<Bytes>& sizes) {
  for (std::size_t k = 0; k < program.shapes; ++k) {
    const bool is_known = std::equal(program.nodes.begin(), program.nodes.end(), sizes.begin(),
                                     [k](const Node& node, Bytes size) {
                                       return node.sizes[k] == size || size.value == 0;
                                     });
    if (is_known) return;
  }
  if (program.shapes == kMaxShapes) drop_smallest_shape(program);
  for (std::size_t i = 0; i < program.nodes.size(); ++i) program.nodes[i].sizes.push_back(sizes[i]);
  ++program.shapes;
}

void merge_incoming(Program& program, const Survivor& survivor, Tick end) {
  const auto place = std::lower_bound(
      program.incoming.begin(), program.incoming.end(), survivor.root,
      [](const Incoming& incoming, RootId root) { return incoming.root < root; });
  if (place == program.incoming.end() || place->root != survivor.root) {
    program.incoming.insert(place, {survivor.root, survivor.size, end});
    return;
  }
  place->end = std::max(place->end, end);
  place->size = std::max(place->size, survivor.size);
}

}  // namespace

Tick MergedRound::translate(Tick when, std::size_t nodes) const {
  if (when == kAlive) return kAlive;
  const auto request = static_cast<std::size_t>(when.value);
  return request >= position_.size() ? tick(nodes) : Tick{position_[request]};
}

// The steps of one merge, in their order.
class RoundMerge {
 public:
  RoundMerge(Program& program, const Round& round) : program_(program), round_(round), merged_(round.requests.size()) {}

  void interleave(const std::function<RootId()>& next_root, const std::function<bool(std::size_t)>& is_left_out);
  void move_ticks();
  void add_lifetimes();
  MergedRound finish(const std::vector<Survivor>& survivors);

 private:
  void copy_nodes_until(std::size_t end);

  Program& program_;
  const Round& round_;
  MergedRound merged_;
  std::vector<Node> nodes_;                // the merged order
  std::vector<Bytes> sizes_;               // of the round's requests, in that order; 0: it has none
  std::vector<std::int64_t> moved_;        // of the program's nodes, in that order
  std::vector<std::int64_t> request_of_;   // of the program's nodes; -1: missed
};

void RoundMerge::copy_nodes_until(std::size_t end) {
  for (std::size_t i = moved_.size(); i < end; ++i) {
    const std::int64_t r = request_of_[i];
    moved_.push_back(static_cast<std::int64_t>(nodes_.size()));
    if (r >= 0) {
      merged_.position_[static_cast<std::size_t>(r)] = moved_.back();
      merged_.is_node_[static_cast<std::size_t>(r)] = true;
    }
    nodes_.push_back(std::move(program_.nodes[i]));
    sizes_.push_back(r >= 0 ? round_.requests[static_cast<std::size_t>(r)].size : Bytes{});
  }
}

void RoundMerge::interleave(const std::function<RootId()>& next_root,
                            const std::function<bool(std::size_t)>& is_left_out) {
  const Alignment alignment = align(program_, round_);
  request_of_.assign(program_.nodes.size(), -1);
  for (std::size_t r = 0; r < round_.requests.size(); ++r) {
    if (alignment.node[r] < 0) continue;
    request_of_[static_cast<std::size_t>(alignment.node[r])] = static_cast<std::int64_t>(r);
  }
  for (std::size_t r = 0; r < round_.requests.size(); ++r) {
    if (alignment.node[r] >= 0) {
      copy_nodes_until(static_cast<std::size_t>(alignment.node[r]) + 1);
      continue;
    }
    merged_.position_[r] = static_cast<std::int64_t>(nodes_.size());
    if (is_left_out(r)) continue;
    merged_.is_node_[r] = true;
    Node node;
    node.root = next_root();
    node.sizes.resize(program_.shapes);
    node.death = kNever;
    node.constant_hint = is_constant_size(round_, round_.requests[r].size);
    nodes_.push_back(std::move(node));
    sizes_.push_back(round_.requests[r].size);
  }
  copy_nodes_until(program_.nodes.size());
}

// Insertions move what the program's own ticks point to.
void RoundMerge::move_ticks() {
  const auto moved = [this](Tick when) {
    if (when == kAlive || when < Tick{0}) return when;
    const auto index = static_cast<std::size_t>(when.value);
    return index >= moved_.size() ? tick(nodes_.size()) : Tick{moved_[index]};
  };
  for (Node& node : nodes_) node.death = moved(node.death);
  for (Incoming& incoming : program_.incoming) incoming.end = moved(incoming.end);
}

void RoundMerge::add_lifetimes() {
  for (Node& node : nodes_) node.missed += 1;
  for (std::size_t r = 0; r < round_.requests.size(); ++r) {
    if (!merged_.is_node(r)) continue;
    Node& node = nodes_[merged_.node_of(r)];
    node.slot = std::max(node.slot, round_.requests[r].size);
    node.death = std::max(node.death, merged_.translate(round_.requests[r].death, nodes_.size()));
    node.missed = 0;
  }
  // A request found behind its predecessor's node may seem to die before its birth; and nodes of a new
  // variant that its first round lacks have not lived at all.
  for (std::size_t i = 0; i < nodes_.size(); ++i) nodes_[i].death = std::max(nodes_[i].death, tick(i + 1));
}

MergedRound RoundMerge::finish(const std::vector<Survivor>& survivors) {
  program_.nodes = std::move(nodes_);
  add_shape(program_, sizes_);
  for (const Survivor& survivor : survivors) {
    merge_incoming(program_, survivor, merged_.translate(survivor.end, program_.nodes.size()));
  }
  program_.rebuild_classes();
  return std::move(merged_);
}

MergedRound merge_round(Program& program, const Round& round, const std::vector<Survivor>& survivors,
                        const std::function<RootId()>& next_root,
                        const std::function<bool(std::size_t)>& is_left_out) {
  RoundMerge merge(program, round);
  merge.interleave(next_root, is_left_out);
  merge.move_ticks();
  merge.add_lifetimes();
  return merge.finish(survivors);
}

void erase_nodes(Program& program, const std::function<bool(const Node&)>& is_gone) {
  if (std::none_of(program.nodes.begin(), program.nodes.end(), is_gone)) return;
  std::vector<std::size_t> moved;  // of every node, and of the end
  std::size_t kept = 0;
  for (const Node& node : program.nodes) {
    moved.push_back(kept);
    if (!is_gone(node)) ++kept;
  }
  moved.push_back(kept);
  const auto move = [&](Tick& when) {
    if (when == kAlive) return;
    when = tick(moved[std::min(static_cast<std::size_t>(when.value), moved.size() - 1)]);
  };
  for (Node& node : program.nodes) move(node.death);
  for (Incoming& incoming : program.incoming) move(incoming.end);
  std::erase_if(program.nodes, is_gone);
  for (std::size_t i = 0; i < program.nodes.size(); ++i) {
    program.nodes[i].death = std::max(program.nodes[i].death, tick(i + 1));
  }
  program.rebuild_classes();
}

}  // namespace ebbtide
