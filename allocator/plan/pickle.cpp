#include "allocator/plan/pickle.h"

#include <algorithm>

#include "allocator/plan/pickle_machine.h"

namespace ebbtide {

Result<Pickle> Pickle::read(std::string_view bytes, const std::string& source) {
  if (bytes.size() >= kMaxBytes) {
    return Error{ErrorCode::kInvalidArgument, source + ": is larger than 2 GiB"};
  }
  Pickle pickle;
  pickle.bytes_ = bytes;
  PickleMachine machine(pickle);
  if (machine.run()) return pickle;
  return Error{ErrorCode::kInvalidArgument,
               source + ": byte " + std::to_string(machine.position()) + ": " + machine.fault()};
}

std::span<const std::uint32_t> Pickle::items_of(std::uint32_t node) const {
  const std::int64_t index = nodes_[node].value;
  if (index == kNoItems) return {};
  return items_[static_cast<std::size_t>(index)];
}

std::size_t PickleValue::position() const { return pickle_->nodes_[node_].position; }

std::optional<std::int64_t> PickleValue::integer() const {
  if (pickle_->kinds_[node_] != Pickle::Kind::kInteger) return std::nullopt;
  return pickle_->nodes_[node_].value;
}

std::optional<std::string_view> PickleValue::text() const {
  if (pickle_->kinds_[node_] != Pickle::Kind::kText) return std::nullopt;
  const Pickle::Node& node = pickle_->nodes_[node_];
  return pickle_->bytes_.substr(static_cast<std::size_t>(node.value), node.length);
}

std::optional<std::vector<PickleValue>> PickleValue::list() const {
  if (pickle_->kinds_[node_] != Pickle::Kind::kList) return std::nullopt;
  std::vector<PickleValue> values;
  const auto items = pickle_->items_of(node_);
  values.reserve(items.size());
  for (const std::uint32_t item : items) values.emplace_back(*pickle_, item);
  return values;
}

std::optional<PickleValue> PickleValue::at(std::string_view key) const {
  if (!is_dictionary()) return std::nullopt;
  const auto items = pickle_->items_of(node_);
  // The last of equal keys counts, as in Python.
  std::optional<PickleValue> found;
  for (std::size_t i = 0; i < std::min(items.size(), 2 * kMaxKeys); i += 2) {
    if (PickleValue(*pickle_, items[i]).text() == key) found.emplace(*pickle_, items[i + 1]);
  }
  return found;
}

bool PickleValue::is_dictionary() const {
  return pickle_->kinds_[node_] == Pickle::Kind::kDictionary;
}

}  // namespace ebbtide
