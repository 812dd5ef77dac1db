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
  const std::size_t count = tensors.size();
  BytesMap<std::size_t> places_in_group;
  std::vector<BytesKey> keys;
  Tensors group;
  std::vector<std::optional<Place>> places;  // none: `numbers` is its place in the group
  std::vector<std::size_t> numbers;
  places_in_group.reserve(count);
  keys.reserve(count), group.reserve(count), places.reserve(count), numbers.reserve(count);
  for (const auto& tensor : tensors) {
    at::Tensor bytes = flat(tensor);
    const BytesKey key = key_of(bytes);
    places.push_back(find(key));
    if (!places.back() && bytes.nbytes() == 0) {
      places.back() = Place{std::make_shared<SwapEntry>(engine_, Tensors{bytes}), 0};
    }
    numbers.push_back(places.back() ? 0
                                    : places_in_group.emplace(key, keys.size()).first->second);
    if (places.back() || numbers.back() < keys.size()) continue;
    keys.push_back(key);
    group.push_back(std::move(bytes));
  }
  const std::vector<Place> taken = group.empty() ? std::vector<Place>{} : take_over(group, keys);
  std::vector<SavedHandle> saved;
  saved.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
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

BytesKey SwapStore::key_of(const at::Tensor& flat) {
  return {flat.storage().unsafeGetStorageImpl(), flat.storage_offset(), flat.numel(),
          flat.scalar_type(), static_cast<std::uint32_t>(flat._version())};
}

// All that `tensor` covers of its storage, in a row.
at::Tensor SwapStore::flat(const at::Tensor& tensor) const {
  if (tensor.device() != device_) {
    throw std::runtime_error("offload: a tensor on " + tensor.device().str() +
                             " was given to a store of " + device_.str());
  }
  // Bytes alone do not carry these marks.
  const bool is_marked = tensor.is_conj() || tensor.is_neg();
  const at::Tensor plain = is_marked ? tensor.resolve_conj().resolve_neg() : tensor;
  return plain.is_contiguous() ? plain : part_of(plain, {span_of(plain)}, {1}, 0);
}

std::optional<SwapStore::Place> SwapStore::find(const BytesKey& key) const {
  for (const Leaving& layer : layers_) {
    const auto found = layer.places.find(key);
    if (found == layer.places.end()) continue;
    const Entry entry = found->second.entry.lock();
    // What nobody needs any more, or has left, does not keep its storage: another may be at its
    // address.
    if (entry != nullptr && entry->is_leaving()) return Place{entry, found->second.number};
  }
  return std::nullopt;
}

std::vector<SwapStore::Place> SwapStore::take_over(const Tensors& flats,
                                                   const std::vector<BytesKey>& keys) {
  auto entry = std::make_shared<SwapEntry>(engine_, flats);
  std::vector<Place> places;
  places.reserve(flats.size());
  if (entry->swap_out()) {
    Leaving& layer = layers_[1];
    layer.entries.push_back(entry);
    layer.bytes += entry->size();
    for (std::size_t i = 0; i < keys.size(); ++i) layer.places[keys[i]] = {entry, i};
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
  layers_[0].entries.clear();
  layers_[0].places.clear();
  layers_[0].bytes = 0;
  std::swap(layers_[0], layers_[1]);
}

}  // namespace ebbtide::offload
