// What operators that sort, choose or count take beyond the bytes of their arguments and results.
#pragma once

#include "dryrun/core/work.h"
#include "dryrun/torch/operator_facts.h"

namespace ebbtide::dryrun {

// Note [Sorting]
// A sort goes over its keys by digits of 8 bits, from the last: it counts all digits in one pass, and then reads and
// writes keys, and the indices that go with them, once for each digit. 29.4 G keys of 32 bits a second on an A100, 40 GB
// (Adinets, Merrill: Onesweep, arXiv 2206.01784) are 36 bytes a key at 0.68 of its bandwidth. Many rows are sorted as one,
// and then by their row's number. Rows short enough for a block of threads are assumed to take as long. A choice (topk,
// median, kthvalue) goes over the rows digit by digit: long rows from device memory by 8 bits, others by 2 bits, with
// a block of threads for each, all of which wait for each other after each digit. Counts and searches take an element
// at a time, sums along a dimension (cumsum) a stretch of a row or a row of columns, searches again for each half that the multiprocessor's own cache does not have.

// Bytes that move where keys of so many bits, `key` bytes long and with something beside each, are sorted.
double sort_bytes(double elements, double key, double beside, double bits);

// `arguments`: before the operator runs.
void add_sorting(const OperatorFacts& facts, const c10::IValue* arguments, std::size_t count, Work& work);

}  // namespace ebbtide::dryrun
