#include "dryrun/torch/sorting_work.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>

namespace ebbtide::dryrun {

namespace {

constexpr double kIndexBytes = 8;
constexpr double kDigitBits = 8, kChoiceDigitBits = 2;
constexpr double kLongRow = 4096;  // longer ones are chosen from by several blocks of threads
constexpr double kFewestThreads = 64, kMostThreads = 1024, kThreadsOfBlock = 128;
constexpr double kNearTable = 16 * 1024;  // elements that are searched without leaving the multiprocessor's own cache
constexpr double kThreadsOfScan = 512, kStretch = 1024, kRoundsOfStretch = 2;
constexpr double kScansOfUnique = 4;  // over its keys: differences, their sum, places, the keys that remain

// Rows along a dimension; of all elements as one row where none is named.
struct Rows {
  double count = 1, length = 1;

  Rows(const at::Tensor& tensor, int dim_argument, const c10::IValue* arguments) {
    const auto elements = static_cast<double>(tensor.numel());
    length = elements;
    if (dim_argument < 0 || !arguments[dim_argument].isInt() || tensor.dim() == 0 || elements == 0) return;
    const std::int64_t dim = arguments[dim_argument].toInt();
    const std::int64_t found = dim < 0 ? dim + tensor.dim() : dim;
    if (found < 0 || found >= tensor.dim()) return;  // torch says so
    length = static_cast<double>(tensor.size(found));
    count = elements / length;
  }
  double elements() const { return count * length; }
};

void add_sort(const Rows& rows, double key, double beside, Work& work) {
  work.bytes += sort_bytes(rows.elements(), key, beside, 8 * key);
  if (rows.count > 1) work.bytes += sort_bytes(rows.elements(), key, beside, std::log2(rows.count));
  // The input and the results are counted as arguments, too.
  work.bytes -= rows.elements() * (2 * key + beside);
}

void add_choice(const Rows& rows, double key, Work& work) {
  if (rows.length > kLongRow) {
    work.bytes += rows.elements() * key * (8 * key / kDigitBits);
    return;
  }
  const double threads = std::clamp(rows.length, kFewestThreads, kMostThreads);
  work.rows.blocks = rows.count * threads / kThreadsOfBlock;
  work.rows.rounds = 8 * key / kChoiceDigitBits;
}

// In halves: the first ones are the same for many elements.
void add_search(const Rows& rows, const at::Tensor& table, Work& work) {
  if (!table.defined() || table.dim() == 0 || table.numel() == 0) return;
  const double halves = std::log2(static_cast<double>(table.size(-1)) / kNearTable);
  work.single_elements += rows.elements() * (1 + std::max(0.0, halves));
}

// Along the last dimension a block of threads goes through a row in stretches; along another one a thread goes through
// each column, and waits for device memory at each step. A single row is done by all multiprocessors.
void add_scan(const at::Tensor& tensor, int dim_argument, const c10::IValue* arguments, Work& work) {
  const Rows rows(tensor, dim_argument, arguments);
  if (rows.count <= 1) return;
  const std::int64_t dim = arguments[dim_argument].toInt();
  const bool is_last = dim == -1 || dim == tensor.dim() - 1;
  work.rows.blocks = rows.count * (is_last ? kThreadsOfScan : 1) / kThreadsOfBlock;
  work.rows.rounds = is_last ? kRoundsOfStretch * std::ceil(rows.length / kStretch) : rows.length;
}

}  // namespace

double sort_bytes(double elements, double key, double beside, double bits) {
  return elements * (key + std::ceil(bits / kDigitBits) * 2 * (key + beside));
}

void add_sorting(const OperatorFacts& facts, const c10::IValue* arguments, std::size_t count, Work& work) {
  if (facts.sorting == Sorting::kNone) return;
  const std::size_t keys = facts.sorting == Sorting::kPermute ? count - 1 : facts.sorting == Sorting::kSearch ? facts.searched : 0;
  if (keys >= count || !arguments[keys].isTensor()) return;
  const at::Tensor& tensor = arguments[keys].toTensor();
  if (!tensor.defined() || !tensor.is_cuda() || tensor.numel() == 0) return;
  const auto key = static_cast<double>(tensor.element_size());
  const Rows rows(tensor, facts.sorted_dim, arguments);
  switch (facts.sorting) {
    case Sorting::kNone:
      break;
    case Sorting::kSort:
      add_sort(rows, key, kIndexBytes, work);
      break;
    case Sorting::kPermute:  // of random keys, as long as the numbers
      work.bytes += sort_bytes(rows.elements(), kIndexBytes, kIndexBytes, 8 * kIndexBytes);
      break;
    case Sorting::kUnique:
      work.bytes += sort_bytes(rows.elements(), key, kIndexBytes, 8 * key) + kScansOfUnique * 2 * kIndexBytes * rows.elements();
      break;
    case Sorting::kChoice:
      add_choice(rows, key, work);
      break;
    case Sorting::kCount:
      work.single_elements += rows.elements();
      break;
    case Sorting::kSearch:
      add_search(rows, arguments[1 - keys].toTensor(), work);
      break;
    case Sorting::kScan:
      add_scan(tensor, facts.sorted_dim, arguments, work);
      break;
    case Sorting::kPlaces:  // counted first, then written
      work.bytes += rows.elements() * key;
      break;
  }
}

}  // namespace ebbtide::dryrun
