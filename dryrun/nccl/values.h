// What collectives leave in memory, as if every rank held what this one holds.
#pragma once

#include <nccl.h>

#include <cstddef>

namespace ebbtide::dryrun {

std::size_t size_of(ncclDataType_t type);

void copy_values(void* target, const void* source, std::size_t bytes);
void forget_values(void* target, std::size_t bytes);
// Reduces `count` numbers in place over `ranks` equal ones. What cannot be worked out is marked as
// not computed.
void reduce_values(void* numbers, std::size_t count, ncclDataType_t type, ncclRedOp_t operation,
                   int ranks);

}  // namespace ebbtide::dryrun
