#include "hooks/torch_offload/swap_entry.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <numeric>
#include <span>
#include <stdexcept>
#include <vector>

#include "hooks/torch_offload/tensor_layout.h"

namespace ebbtide::offload {
namespace {

constexpr std::int64_t kLargestElement = 16;   // complex128
constexpr std::int64_t kSmallestBytes = 4096;  // less is not worth a copy: it stays where it is

std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

ebbtide_swap_source source_of(const at::Tensor& tensor, std::int64_t bytes) {
  return {reinterpret_cast<std::uint64_t>(tensor.const_data_ptr()), bytes};
}

}  // namespace

void Swapped::take_shape(const at::Tensor& tensor) {
  size_ = tensor.sizes();
  stride_ = tensor.strides();
  has_shape_ = true;
}

std::int64_t Swapped::size_bytes() const { return entry_->size_of(number_); }
std::int64_t Swapped::swapped_bytes() const { return entry_->swapped_bytes(number_); }
bool Swapped::prefetch() { return entry_->prefetch(); }
at::Tensor Swapped::get_as(at::IntArrayRef size, at::IntArrayRef stride, std::int64_t begin) {
  return entry_->get(number_, size, stride, begin);
}
bool Swapped::is_here() const { return size_bytes() > 0 && entry_->is_here(); }
bool Swapped::is_changed() const { return entry_->is_changed(number_); }

SwapEntry::SwapEntry(std::shared_ptr<SwapEngine> engine, Each<at::Tensor> sources)
    : engine_(std::move(engine)),
      device_(sources.front().device()),
      sources_(std::move(sources)),
      stream_(engine_->stream()) {
  std::int64_t end = 0;
  parts_.reserve(sources_.size());
  for (const auto& source : sources_) {
    const std::int64_t start = round_up(end, SwapEngine::kAlignment);
    parts_.push_back({Witness(source, "a tensor"), source.scalar_type(), start, bytes_of(source),
                      Swapped(this, parts_.size())});
    end = start + parts_.back().bytes;
  }
}

SwapEntry::~SwapEntry() {
  if (held_ != nullptr) *held_ -= rest_bytes();
  if (ticket_) engine_->release(*ticket_, stream_, is_leaving(), !is_awaited_);
}

std::int64_t SwapEntry::swapped_bytes(std::size_t number) const {
  if (!ticket_) return 0;
  return parts_[number].bytes - (rest_.defined() ? bytes_of(rest_) : 0);
}

std::int64_t SwapEntry::rest_bytes() const {
  if (rest_.defined()) return bytes_of(rest_);
  if (ticket_) return 0;
  return std::accumulate(parts_.begin(), parts_.end(), std::int64_t{0},
                         [](std::int64_t sum, const Part& part) { return sum + part.bytes; });
}

SavedHandle SwapEntry::handle(const std::shared_ptr<SwapEntry>& entry, std::size_t number,
                              const at::Tensor& tensor) {
  Swapped& first = entry->parts_[number].first;
  if (!first.has_shape()) {
    first.take_shape(tensor);
    return {entry, &first};
  }
  struct Another {
    std::shared_ptr<SwapEntry> entry;
    Swapped swapped;
  };
  const auto another = std::make_shared<Another>(Another{entry, Swapped(entry.get(), number)});
  another->swapped.take_shape(tensor);
  return {another, &another->swapped};
}

void SwapEntry::count_in(HeldBytes held) {
  held_ = std::move(held);
  *held_ += rest_bytes();
}

bool SwapEntry::swap_out() {
  const bool single = sources_.size() == 1;
  // The usual few need no memory of their own.
  std::array<ebbtide_swap_source, 8> few{};
  std::vector<ebbtide_swap_source> many(sources_.size() > few.size() ? sources_.size() : 0);
  const std::span asked = many.empty() ? std::span(few).first(sources_.size()) : std::span(many);
  std::transform(sources_.begin(), sources_.end(), asked.begin(),
                 [](const auto& source) { return source_of(source, bytes_of(source)); });
  while (asked.back().bytes >= (single ? kSmallestBytes : 1)) {
    try {
      ticket_ = engine_->swap_out({asked.data(), asked.size()}, stream_);
    } catch (const std::runtime_error& error) {  // nothing is lost: the tensors are still here
      std::fprintf(stderr, "ebbtide warning %s; the tensor stays on the device\n", error.what());
      return false;
    }
    if (ticket_ || !single) break;
    const std::int64_t room = engine_->room(asked.front().bytes - 1);
    asked.front().bytes = room - room % sources_.front().element_size();
  }
  if (!ticket_) return false;
  if (single && asked.front().bytes < size()) {
    const auto element = sources_.front().element_size();
    const auto first = asked.front().bytes / element;
    rest_ = sources_.front().view({-1}).narrow(0, first, size() / element - first).clone();
  }
  return true;
}

bool SwapEntry::prefetch() {
  if (is_leaving()) return false;
  if (landed_.defined() || !ticket_) return true;
  try {
    land();
    return true;
  } catch (const c10::OutOfMemoryError&) {
    return false;  // it is asked for again when it is needed, with more memory free
  }
}

void SwapEntry::land() {
  // Whole elements of any type, so that it can be seen as one.
  at::Tensor landed = empty_bytes(round_up(size(), kLargestElement), device_);
  std::int64_t away = size();
  if (rest_.defined()) {
    away -= bytes_of(rest_);
    landed.narrow(0, away, bytes_of(rest_)).copy_(rest_.view(at::kByte));
  }
  const std::uint64_t stream = engine_->stream();
  engine_->swap_in(*ticket_, landed.mutable_data_ptr(), away, stream);
  stream_ = stream;
  landed_ = std::move(landed);
  is_awaited_ = false;
}

at::Tensor SwapEntry::get(std::size_t number, at::IntArrayRef size, at::IntArrayRef stride,
                          std::int64_t begin) {
  const Part& part = parts_[number];
  part.witness.check();
  if (!sources_.empty()) return part_of(sources_[number], size, stride, begin);
  if (!landed_.defined()) land();
  const std::uint64_t stream = engine_->stream();
  if (!is_awaited_ || stream != stream_) {
    engine_->await_in(*ticket_, stream);
    is_awaited_ = true;
  }
  // With a version of its own: a change of one of several is no change of all.
  const auto element = static_cast<std::int64_t>(c10::elementSize(part.type));
  return typed_part(landed_, part.start + begin * element, part.type, size, stride);
}

}  // namespace ebbtide::offload
