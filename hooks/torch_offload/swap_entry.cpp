#include "hooks/torch_offload/swap_entry.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <cstdio>
#include <numeric>
#include <stdexcept>

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

SwapEntry::SwapEntry(std::shared_ptr<SwapEngine> engine, Tensors sources)
    : engine_(std::move(engine)),
      device_(sources.front().device()),
      sources_(std::move(sources)),
      stream_(engine_->stream()) {
  std::int64_t end = 0;
  parts_.reserve(sources_.size());
  for (const auto& source : sources_) {
    const std::int64_t start = round_up(end, SwapEngine::kAlignment);
    parts_.push_back({Witness(source, "a tensor"), source.scalar_type(), start, bytes_of(source)});
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

void SwapEntry::count_in(HeldBytes held) {
  held_ = std::move(held);
  *held_ += rest_bytes();
}

bool SwapEntry::swap_out() {
  const bool single = sources_.size() == 1;
  std::vector<ebbtide_swap_source> asked;
  asked.reserve(sources_.size());
  for (const auto& source : sources_) asked.push_back(source_of(source, bytes_of(source)));
  while (asked.back().bytes >= (single ? kSmallestBytes : 1)) {
    try {
      ticket_ = engine_->swap_out(asked, stream_);
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

void SwapEntry::let_go() {
  if (!is_leaving()) return;
  engine_->await_out(*ticket_, stream_);
  sources_.clear();
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
  at::Tensor landed = at::empty({round_up(size(), kLargestElement)},
                                at::TensorOptions().dtype(at::kByte).device(device_));
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
