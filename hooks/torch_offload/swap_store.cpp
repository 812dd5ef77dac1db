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

SavedHandles SwapStore::save_all(at::TensorList tensors) {
  BytesNumbers distinct(tensors.size());
  c10::SmallVector<BytesKey, 4> keys;
  Flats group;
  Places places;  // without an entry: `number` is its place in the group
  keys.reserve(tensors.size()), group.reserve(tensors.size()), places.reserve(tensors.size());
  for (const auto& tensor : tensors) {
    at::Tensor bytes = flat(tensor);
    const BytesKey key = key_of(bytes);
    Place place = find(key).value_or(Place{});
    if (place.entry == nullptr && bytes.nbytes() == 0) {
      place.entry = std::make_shared<SwapEntry>(engine_, Flats{bytes});
    }
    if (place.entry == nullptr) {
      const auto [number, is_new] = distinct.of(key);
      place.number = number;
      if (is_new) {
        keys.push_back(key);
        group.push_back(std::move(bytes));
      }
    }
    places.push_back(std::move(place));
  }
  const Places taken = group.empty() ? Places() : take_over(std::move(group), keys);
  SavedHandles saved;
  saved.reserve(tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const Place& place = places[i].entry != nullptr ? places[i] : taken[places[i].number];
    saved.push_back(SwapEntry::handle(place.entry, place.number, tensors[i]));
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

SwapStore::Places SwapStore::take_over(Flats flats, c10::ArrayRef<BytesKey> keys) {
  auto entry = std::make_shared<SwapEntry>(engine_, flats);
  Places places;
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
      places.push_back(take_over({flats[i]}, keys[i]).front());
    }
    return places;
  }
  entry->count_in(held_);
  for (std::size_t i = 0; i < flats.size(); ++i) places.push_back({entry, i});
  return places;
}

void SwapStore::let_go_of_one_layer() {
  std::vector<Entry> leaving;
  std::vector<std::uint64_t> tickets;
  const auto let_go_of_these = [&] {
    if (leaving.empty()) return;
    engine_->await_out(tickets, leaving.front()->stream());
    for (const Entry& entry : leaving) entry->let_go();
    leaving.clear(), tickets.clear();
  };
  for (const auto& weak : layers_[0].entries) {
    Entry entry = weak.lock();
    if (entry == nullptr || !entry->is_leaving()) continue;
    if (!leaving.empty() && leaving.front()->stream() != entry->stream()) let_go_of_these();
    tickets.push_back(entry->ticket());
    leaving.push_back(std::move(entry));
  }
  let_go_of_these();
  layers_[0].entries.clear();
  layers_[0].places.clear();
  layers_[0].bytes = 0;
  std::swap(layers_[0], layers_[1]);
}

}  // namespace ebbtide::offload
