#include "hooks/torch_offload/swap_store.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "hooks/torch_offload/tensor_layout.h"

namespace ebbtide::offload {

SwapStore::SwapStore(at::Device device, std::int64_t host_budget, std::int64_t most_in_flight)
    : device_(device),
      engine_(std::make_shared<SwapEngine>(device, host_budget)),
      most_in_flight_(most_in_flight) {}

std::vector<SavedHandle> SwapStore::save_all(const Tensors& tensors) {
  std::map<Key, std::size_t> places_in_group;
  std::vector<Key> keys;
  Tensors group;
  std::vector<std::optional<Place>> places;  // none: `numbers` is its place in the group
  std::vector<std::size_t> numbers;
  for (const auto& tensor : tensors) {
    at::Tensor bytes = flat(tensor);
    const Key key = key_of(bytes);
    places.push_back(find(key));
    if (!places.back() && bytes.nbytes() == 0) {
      places.back() = Place{std::make_shared<SwapEntry>(engine_, Tensors{bytes}), 0};
    }
    numbers.push_back(places.back() ? 0
                                    : places_in_group.try_emplace(key, keys.size()).first->second);
    if (places.back() || numbers.back() < keys.size()) continue;
    keys.push_back(key);
    group.push_back(std::move(bytes));
  }
  const std::vector<Place> taken = group.empty() ? std::vector<Place>{} : take_over(group, keys);
  std::vector<SavedHandle> saved;
  saved.reserve(tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const Place& place = places[i] ? *places[i] : taken[numbers[i]];
    saved.push_back(std::make_shared<Swapped>(place.entry, place.number, tensors[i]));
  }
  return saved;
}

void SwapStore::layer_ended() {
  has_layers_ = true;
  let_go_of_one_layer();
}

void SwapStore::let_go() {
  let_go_of_one_layer();
  let_go_of_one_layer();
}

SwapStore::Key SwapStore::key_of(const at::Tensor& flat) {
  return {flat.storage().unsafeGetStorageImpl(), flat.storage_offset(), flat.numel(),
          flat.scalar_type(), static_cast<std::uint32_t>(flat._version())};
}

// All that `tensor` covers of its storage, contiguous and without a graph.
at::Tensor SwapStore::flat(const at::Tensor& tensor) const {
  if (tensor.device() != device_) {
    throw std::runtime_error("offload: a tensor on " + tensor.device().str() +
                             " was given to a store of " + device_.str());
  }
  // Bytes alone do not carry these marks.
  const bool is_marked = tensor.is_conj() || tensor.is_neg();
  const at::Tensor plain =
      is_marked ? tensor.detach().resolve_conj().resolve_neg() : alias_of(tensor);
  return plain.is_contiguous() ? plain : plain.as_strided({span_of(plain)}, {1});
}

std::optional<SwapStore::Place> SwapStore::find(const Key& key) const {
  const auto found = in_flight_.find(key);
  if (found == in_flight_.end()) return std::nullopt;
  const Entry entry = found->second.entry.lock();
  // What nobody needs any more, or has left, does not keep its storage: another may be at its
  // address.
  if (entry == nullptr || !entry->is_leaving()) return std::nullopt;
  return Place{entry, found->second.number};
}

std::vector<SwapStore::Place> SwapStore::take_over(const Tensors& flats,
                                                   const std::vector<Key>& keys) {
  auto entry = std::make_shared<SwapEntry>(engine_, flats);
  std::vector<Place> places;
  if (entry->swap_out()) {
    layers_[1].entries.push_back(entry);
    layers_[1].bytes += entry->size();
    for (std::size_t i = 0; i < keys.size(); ++i) in_flight_[keys[i]] = {entry, i};
    while (!has_layers_ && layers_[0].bytes + layers_[1].bytes > most_in_flight_) {
      let_go_of_one_layer();
    }
  } else if (flats.size() > 1) {
    for (std::size_t i = 0; i < flats.size(); ++i) {
      places.push_back(take_over({flats[i]}, {keys[i]}).front());
    }
    return places;
  }
  entry->count_in(held_);
  for (std::size_t i = 0; i < flats.size(); ++i) places.push_back({entry, i});
  return places;
}

void SwapStore::let_go_of_one_layer() {
  for (const auto& weak : layers_[0].entries) {
    if (const Entry entry = weak.lock()) entry->let_go();
  }
  layers_[0] = std::exchange(layers_[1], {});
  std::erase_if(in_flight_, [](const auto& item) {
    const Entry entry = item.second.entry.lock();
    return entry == nullptr || !entry->is_leaving();
  });
}

}  // namespace ebbtide::offload
