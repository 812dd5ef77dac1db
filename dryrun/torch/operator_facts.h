// What the companion has to know about an operator, worked out once from its schema.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>
#include <string>
#include <vector>

namespace ebbtide::dryrun {

enum class ArgumentRole { kRead, kWritten, kOut };

enum class OperatorKind {
  kTransparent,  // views, and compositions of other operators: those are seen one by one
  kCopy,         // aten::copy_: bytes may leave or enter the device
  kRead,         // a value goes to the host
  kEmpty,        // makes memory that holds nothing
  kFill,         // aten::fill_ with a number: zeros cost nothing at any size
  kCompute,      // runs kernels of its own
};

// Where attention's operators take what decides their time: positions among the arguments.
struct AttentionArguments {
  std::size_t query = 0, key = 0, value = 0, causal = 0;
  int begins = -1;   // where packed sequences' keys begin; -1: there is no such argument
  int longest = -1;  // most keys of a packed sequence; means nothing where no beginnings are given
  bool is_backward = false;
  bool is_cudnn = false;  // its heads come before its tokens
};

// An operator that says where its argument's largest, smallest or drawn elements are.
struct Choice {
  std::size_t result = 0;  // which of its results holds the indices
  int dim = -1;            // argument that names the dimension; -1: it is the last one
};

// Kernels that reduce rows, and go over them more than once (row_passes.cpp).
enum class RowKernel {
  kNone,
  kSoftmax,
  kSoftmaxBackward,
  kNorm,
  kNormBackward,
  kReduction,
  kReadTwice,          // norms over groups and batches
  kBackwardReadsTwice,  // theirs
  kPairs               // distances, a block of threads for each
};

// What says how much of a tensor is written that an operator changes here and there (placed_bytes.cpp).
enum class Placing { kNone, kSource, kElements, kSlices, kIndices };

// Operators that go over their keys more than once, or by one element at a time (sorting_work.h).
enum class Sorting { kNone, kSort, kPermute, kUnique, kChoice, kCount, kSearch, kPlaces, kScan };

// Convolutions of each channel by itself that are torch's own kernels (operator_work.cpp). Backward: if it is one.
enum class Depthwise { kNone, kForward, kBackward };

struct OperatorFacts {
  std::string name;  // with overload: "aten::add_.Tensor"
  OperatorKind kind = OperatorKind::kTransparent;
  std::vector<ArgumentRole> roles;
  std::size_t return_count = 0;
  bool has_tensor_arguments = false;
  bool writes = false;  // has an argument that is not only read
  bool draws_random = false;
  bool has_generator = false;
  bool overwrites = false;       // what a written argument held before does not matter
  bool decides_size = false;     // its output's size depends on values: compute before running
  bool computes_floats = false;  // small floating-point results are worth having
  bool fails_on_cpu = false;     // it cannot or must not be computed on the host
  bool is_embedding = false;
  bool updates_parameters = false;  // an optimizer's own operator
  bool moves = false;               // puts what others hold together or apart: FSDP's gathering
  bool scatters = false;            // its result is another's zeros but for the places that are named
  int looked_up = -1;               // argument of which only what the others name is read; -1: none
  int shape_only = -1;              // argument of which nothing is read but its shape; -1: none
  Placing placing = Placing::kNone;
  bool is_bag = false;              // sums up rows that its indices name: as many as these are are read
  bool is_pointwise = false;        // goes through its tensors element by element
  bool is_foreach = false;          // of lists of tensors, a kernel for many of them
  bool joins_places = false;        // of a sparse tensor: those that are the same
  bool joins = false;               // puts a list of tensors into one
  RowKernel rows = RowKernel::kNone;
  Sorting sorting = Sorting::kNone;
  int sorted_dim = -1;              // argument that names the dimension of what is sorted; -1: all of it is one row
  std::size_t searched = 0;         // argument whose elements are looked for, of the first two
  Depthwise depthwise = Depthwise::kNone;
  bool is_left_by_cudnn = false;    // cuDNN's on a device, torch's own here
  bool asks_for_cudnn = false;      // by itself, for what cuDNN does not do here
  int trains = -1;                  // argument of a batch norm that says whether it does; -1: no such
  bool is_grouped_product = false;  // as many matrix products as its groups are, of two arguments
  bool compares = false;            // element by element, with booleans as results
  bool agrees = false;              // says whether two tensors hold the same, or nearly: unknown ones do
  bool is_equality = false;         // whether exactly the same
  bool is_check = false;            // says whether all of its argument is true; programs that ask it end if not
  bool holds_of_equals = false;     // compares, and what is equal passes
  bool checks_finite = false;       // writes a gradient scaler's found_inf, its last written argument
  bool follows_typical = false;     // is computed from what is derived of typical values, too
  bool counts_as_double = false;    // the host has it for floating-point numbers only
  std::vector<std::size_t> successes, pivots;  // results of a factorisation that say how it went
  std::optional<Choice> choice;
  std::optional<AttentionArguments> attention;
};

// The facts of an operator; the reference stays valid. Thread-safe.
OperatorFacts& facts_of(const c10::OperatorHandle& op);

}  // namespace ebbtide::dryrun
