#include "dryrun/torch/placed_bytes.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>

#include "dryrun/core/simulator.h"
#include "dryrun/torch/sorting_work.h"

namespace ebbtide::dryrun {

namespace {

double elements(const at::Tensor& tensor) { return static_cast<double>(tensor.numel()); }

// index_put_: the indices of some dimensions, together; all of the others. A mask names at most as many
// places as it has.
struct Indexed {
  double places = 1;  // that are named
  double each = 1;    // elements of one
};

Indexed indexed(const at::Tensor& self, const c10::IValue& indices) {
  double places = 1, each = elements(self);
  std::int64_t dim = 0;
  for (const std::optional<at::Tensor>& index : indices.toOptionalTensorVector()) {
    if (!index || !index->defined()) {
      ++dim;
      continue;
    }
    const bool is_mask = index->scalar_type() == at::kBool || index->scalar_type() == at::kByte;
    const std::int64_t dims = is_mask ? index->dim() : 1;
    for (const std::int64_t end = dim + dims; dim < end && dim < self.dim(); ++dim) {
      each /= std::max(1.0, static_cast<double>(self.size(dim)));
    }
    places = std::max(places, elements(*index));
  }
  return {places, each};
}

double indexed_elements(const at::Tensor& self, const c10::IValue& indices) {
  const Indexed found = indexed(self, indices);
  return found.places * found.each;
}

// index_fill_: slices of one dimension.
double sliced_elements(const at::Tensor& self, std::int64_t dim, const at::Tensor& index) {
  if (self.dim() == 0) return 1;
  const std::int64_t size = self.size(dim < 0 ? dim + self.dim() : dim);
  return size == 0 ? 0 : elements(self) / static_cast<double>(size) * elements(index);
}

double placed_elements(Placing placing, const at::Tensor& self, const c10::IValue* arguments) {
  switch (placing) {
    case Placing::kIndices:
      return indexed_elements(self, arguments[1]);
    case Placing::kSource:
      return elements(arguments[3].toTensor());
    case Placing::kElements:
      return elements(arguments[2].toTensor());
    case Placing::kSlices:
      return sliced_elements(self, arguments[1].toInt(), arguments[2].toTensor());
    case Placing::kNone:
      break;
  }
  return elements(self);
}

double l2_bytes() { return Simulator::instance().timeline().speed().l2_bytes; }

}  // namespace

double placed_bytes(const OperatorFacts& facts, const c10::IValue* arguments) {
  const at::Tensor& self = arguments[0].toTensor();
  const auto size = static_cast<double>(self.element_size());
  const double placed = placed_elements(facts.placing, self, arguments);
  // What is added to the same places many times comes from device memory each time, unless all of it stays near. (With
  // indices of several dimensions torch sorts them before.)
  const bool comes_again = facts.placing != Placing::kIndices && elements(self) * size > l2_bytes();
  return size * (comes_again ? placed : std::min(elements(self), placed));
}

double sorted_places_bytes(const c10::IValue* arguments) {
  constexpr double kIndexBytes = 8;
  const at::Tensor& self = arguments[0].toTensor();
  if (!arguments[3].toBool() || self.numel() == 0) return 0;
  const Indexed found = indexed(self, arguments[1]);
  // Of a mask the values tell how many places are true.
  const double values = elements(arguments[2].toTensor()) / found.each;
  const double places = values > 1 ? std::min(found.places, values) : found.places;
  const double bits = std::log2(std::max(2.0, elements(self) / found.each));
  return sort_bytes(places, kIndexBytes, kIndexBytes, bits);
}

double bag_bytes(const c10::IValue* arguments) {
  const at::Tensor& table = arguments[0].toTensor();
  if (table.dim() != 2) return 0;
  const double row = static_cast<double>(table.size(1)) * static_cast<double>(table.element_size());
  return elements(arguments[1].toTensor()) * row;
}

}  // namespace ebbtide::dryrun
