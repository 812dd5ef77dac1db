#include "allocator/runtime/round_merge.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "allocator/runtime/alignment.h"

namespace ebbtide {
namespace {

constexpr Tick kNever{-1};  // of a node that has not lived yet

Tick tick(std::size_t index) { return Tick{static_cast<std::int64_t>(index)}; }

bool is_constant_size(const Round& round, Bytes size) {
  return std::binary_search(round.constant_sizes.begin(), round.constant_sizes.end(), size);
}

// The only shape with its first extent: the only one of a batch of two.
bool is_only_of_its_kind(const Program& program, std::size_t shape) {
  const Extents& input = program.inputs[shape];
  if (input.empty()) return false;
  return std::count_if(program.inputs.begin(), program.inputs.end(),
                       [&](const Extents& other) { return !other.empty() && other[0] == input[0]; }) == 1;
}

void drop_smallest_shape(Program& program) {
  std::vector<Bytes> totals(program.shapes);
  for (const Node& node : program.nodes) {
    for (std::size_t k = 0; k < program.shapes; ++k) totals[k] += node.sizes[k];
  }
  for (std::size_t k = 0; k < program.shapes; ++k) {
    if (is_only_of_its_kind(program, k)) totals[k] = Bytes{std::numeric_limits<std::int64_t>::max()};
  }
  const auto least = std::min_element(totals.begin(), totals.end()) - totals.begin();
  for (Node& node : program.nodes) node.sizes.erase(node.sizes.begin() + least);
  program.inputs.erase(program.inputs.begin() + least);
  --program.shapes;
}

// Adds the round's sizes (0 where it lacks the node) as a shape, unless the program has that shape.
void add_shape(Program& program, const std::vector<Bytes>& sizes, const Extents& input) {
  for (std::size_t k = 0; k < program.shapes; ++k) {
    const bool is_known = std::equal(program.nodes.begin(), program.nodes.end(), sizes.begin(),
                                     [k](const Node& node, Bytes size) {
                                       return node.sizes[k] == size || size.value == 0;
                                     });
    if (is_known && program.inputs[k] == input) return;
  }
  if (program.shapes == kMaxShapes) drop_smallest_shape(program);
  for (std::size_t i = 0; i < program.nodes.size(); ++i) program.nodes[i].sizes.push_back(sizes[i]);
  program.inputs.push_back(input);
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

// Bytes live at every tick, as differences, and their highest sum.
class Load {
 public:
  explicit Load(std::size_t nodes) : change_(nodes + 2) {}

  void add(Bytes size, std::size_t birth, Tick death) {
    const auto end = std::min(static_cast<std::size_t>(std::max<std::int64_t>(death.value, 0)), change_.size() - 1);
    if (end <= birth) return;
    change_[birth] += size;
    change_[end] -= size;
  }

  Bytes peak() const {
    Bytes live;
    Bytes highest;
    for (const Bytes change : change_) highest = std::max(highest, live += change);
    return highest;
  }

 private:
  std::vector<Bytes> change_;
};

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
  double cost_of_sharing() const;
  MergedRound finish(const std::vector<Survivor>& survivors);

 private:
  void copy_nodes_until(std::size_t end);
  Tick earliest_in_program(Tick death) const;
  Tick earliest_in_round(Tick death) const;

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
    node.seen += 1;
  }
  // A request found behind its predecessor's node may seem to die before its birth; and nodes of a new
  // variant that its first round lacks have not lived at all.
  for (std::size_t i = 0; i < nodes_.size(); ++i) nodes_[i].death = std::max(nodes_[i].death, tick(i + 1));
}

// A death lies between two requests; what the other side has in between may come before or after it. These
// take it for before.
Tick RoundMerge::earliest_in_program(Tick death) const {
  if (death == kAlive || death <= Tick{0}) return death;
  const auto last = static_cast<std::size_t>(death.value) - 1;
  return last >= moved_.size() ? tick(nodes_.size()) : Tick{moved_[last] + 1};
}

Tick RoundMerge::earliest_in_round(Tick death) const {
  if (death == kAlive || death <= Tick{0}) return death;
  const auto last = static_cast<std::size_t>(death.value) - 1;
  if (last >= round_.requests.size()) return tick(nodes_.size());
  return Tick{merged_.position_[last] + (merged_.is_node(last) ? 1 : 0)};
}

// Before move_ticks: the nodes' deaths are those of the program before the merge.
double RoundMerge::cost_of_sharing() const {
  const std::size_t count = nodes_.size();
  Load of_program(count);
  Load of_round(count);
  Load of_both(count);
  Bytes largest_difference;
  std::vector<Tick> death_in_round(count, kNever);
  for (std::size_t r = 0; r < round_.requests.size(); ++r) {
    if (!merged_.is_node(r)) continue;
    death_in_round[merged_.node_of(r)] = earliest_in_round(round_.requests[r].death);
  }
  for (std::size_t i = 0; i < count; ++i) {
    const Node& node = nodes_[i];
    if (node.unplanned) continue;
    const Bytes slot = std::max(node.slot, sizes_[i]);
    const Tick death = earliest_in_program(node.death);
    const bool is_in_both = death != kNever && death_in_round[i] != kNever;
    if (!is_in_both && node.missed == 0) largest_difference = std::max(largest_difference, slot);
    of_program.add(slot, i, death);
    of_round.add(slot, i, death_in_round[i]);
    of_both.add(slot, i, std::max(death, death_in_round[i]));
  }
  for (const Incoming& incoming : program_.incoming) {
    for (Load* load : {&of_program, &of_round, &of_both}) load->add(incoming.size, 0, earliest_in_program(incoming.end));
  }
  const Bytes apart = std::max(of_program.peak(), of_round.peak());
  if (largest_difference.value * kNoticedPart < apart.value || apart.value == 0) return 1.0;
  return static_cast<double>(of_both.peak().value) / static_cast<double>(apart.value);
}

// Of all that was alive in the round, wherever it stood.
Bytes needed_by(const Round& round) {
  Load load(round.requests.size());
  for (std::size_t r = 0; r < round.requests.size(); ++r) load.add(round.requests[r].size, r, round.requests[r].death);
  for (const Survivor& survivor : round.survivors) load.add(survivor.size, 0, survivor.end);
  return load.peak();
}

Bytes asked_by(const Program& program) {
  Load load(program.nodes.size());
  for (std::size_t i = 0; i < program.nodes.size(); ++i) {
    if (!program.nodes[i].unplanned) load.add(program.nodes[i].slot, i, program.nodes[i].death);
  }
  for (const Incoming& incoming : program.incoming) load.add(incoming.size, 0, incoming.end);
  return load.peak();
}

MergedRound RoundMerge::finish(const std::vector<Survivor>& survivors) {
  program_.nodes = std::move(nodes_);
  add_shape(program_, sizes_, round_.extents);
  program_.has_other_inputs = program_.has_other_inputs || round_.has_other_inputs;
  program_.repeats_module = program_.repeats_module || round_.repeats_module;
  for (const Survivor& survivor : survivors) {
    merge_incoming(program_, survivor, merged_.translate(survivor.end, program_.nodes.size()));
  }
  program_.needed = std::max(program_.needed, needed_by(round_));
  program_.asked = asked_by(program_);
  program_.rebuild_classes();
  return std::move(merged_);
}

MergedRound merge_round(Program& program, const Round& round, const std::vector<Survivor>& survivors,
                        const std::function<RootId()>& next_root,
                        const std::function<bool(std::size_t)>& is_left_out) {
  if (program.needed.value == 0) program.needed = asked_by(program);  // of a loaded plan nothing else is known
  RoundMerge merge(program, round);
  merge.interleave(next_root, is_left_out);
  merge.move_ticks();
  merge.add_lifetimes();
  return merge.finish(survivors);
}

double cost_of_sharing(const Program& program, const Round& round) {
  Program copy = program;
  RoundMerge merge(copy, round);
  merge.interleave([] { return RootId{}; }, [](std::size_t) { return false; });
  return merge.cost_of_sharing();
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
