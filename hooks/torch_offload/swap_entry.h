// Bytes that left together: on the device, on the host, or the first part there and the rest here.
//
// Note [Lifetimes without record_stream]
// A copy reads or writes a tensor's memory on a stream that torch knows nothing of. So an entry
// keeps the tensor itself until the compute stream waits for that copy: from then on its memory may
// be used again there, as stream order says. A tensor on its way out is let go when the second
// layer after it begins (MEMO, arXiv 2407.12117, section 4.1: two rounding buffers), not whenever
// its copy happens to end, so that its lifetime is the same in every iteration and a plan can count
// on it.
#pragma once

#include <c10/util/SmallVector.h>

#include <memory>
#include <optional>

#include "hooks/torch_offload/store.h"
#include "hooks/torch_offload/swap_engine.h"

namespace ebbtide::offload {

class SwapEntry;

// One tensor in an entry, which keeps it or is kept with it.
class Swapped final : public Saved {
 public:
  Swapped(SwapEntry* entry, std::size_t number) : entry_(entry), number_(number) {}
  bool has_shape() const { return has_shape_; }
  // What get() returns looks like `tensor`.
  void take_shape(const at::Tensor& tensor);

  std::int64_t size_bytes() const override;
  std::int64_t swapped_bytes() const override;
  bool prefetch() override;
  at::Tensor get() override { return get_as(size_, stride_, 0); }
  at::Tensor get_as(at::IntArrayRef size, at::IntArrayRef stride, std::int64_t begin) override;
  bool is_here() const override;
  bool is_changed() const override;

 private:
  SwapEntry* entry_;
  std::size_t number_;
  bool has_shape_ = false;
  at::DimVector size_, stride_;
};

// What one ticket of the engine stands for: contiguous tensors, one after the other.
//   kept        sources, and no ticket
//   on its way  sources and ticket
//   away        ticket, and `rest` if it is split: of a single source, what did not fit on the host
//   landed      ticket and landed
class SwapEntry {
 public:
  // A few sources need no memory of their own.
  template <class T>
  using Each = c10::SmallVector<T, 1>;

  // `sources`: at least one, contiguous, of one device, and used on the current stream.
  SwapEntry(std::shared_ptr<SwapEngine> engine, Each<at::Tensor> sources);
  // Memory that a copy still works on is freed behind that copy.
  ~SwapEntry();
  SwapEntry(const SwapEntry&) = delete;
  SwapEntry& operator=(const SwapEntry&) = delete;

  bool is_leaving() const { return is_here() && ticket_.has_value(); }
  // Requires: is_leaving().
  std::uint64_t ticket() const { return *ticket_; }
  // On which the sources, or what landed, may be freed.
  std::uint64_t stream() const { return stream_; }
  // Whether the sources themselves are still held: what get() returns is then the program's, too.
  bool is_here() const { return !sources_.empty(); }
  // Whether source `number` was changed in place since: get() will throw.
  bool is_changed(std::size_t number) const { return parts_[number].witness.has_changed(); }
  std::int64_t size_of(std::size_t number) const { return parts_[number].bytes; }
  // From its first byte to its last.
  std::int64_t size() const { return parts_.back().start + parts_.back().bytes; }
  // Of source `number`, bytes that are on the host, or on their way there.
  std::int64_t swapped_bytes(std::size_t number) const;

  // Source `number` of an entry, in the shape of `tensor`. Keeps the entry. The first one that is asked for is
  // a part of it, because most are the only one.
  static SavedHandle handle(const std::shared_ptr<SwapEntry>& entry, std::size_t number,
                            const at::Tensor& tensor);

  // From now until its end, what of it stays on the device counts there.
  void count_in(HeldBytes held);

  // Starts on the way to the host, with the first part if not all of a single source fits there.
  // False: nothing did, or one of several did not; then nothing has changed.
  bool swap_out();
  // Drops the sources. Requires: the compute stream waits until they are copied.
  void let_go() { sources_.clear(); }
  // Whether it is here, or on its way.
  bool prefetch();
  // Source `number` in this shape, on the device, for work on the current stream. Its first element is
  // `begin` elements behind that of the source.
  at::Tensor get(std::size_t number, at::IntArrayRef size, at::IntArrayRef stride,
                 std::int64_t begin);

 private:
  // One source.
  struct Part {
    Witness witness;
    at::ScalarType type;
    std::int64_t start, bytes;  // where it lies in the ticket
    Swapped first;              // the first handle of it
  };

  void land();
  std::int64_t rest_bytes() const;

  std::shared_ptr<SwapEngine> engine_;
  at::Device device_;
  Each<Part> parts_;
  Each<at::Tensor> sources_;
  at::Tensor rest_, landed_;
  HeldBytes held_;  // null: not counted
  std::optional<std::uint64_t> ticket_;
  std::uint64_t stream_;
  bool is_awaited_ = true;  // no copy in is under way that its target must outlive
};

}  // namespace ebbtide::offload
