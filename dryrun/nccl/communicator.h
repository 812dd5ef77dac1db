// What an ncclComm_t made here points to.
#pragma once

#include <nccl.h>

#include <vector>

#include "dryrun/core/collective.h"

struct ncclComm {
  int rank = 0;              // of this process in the group
  int device = 0;            // current when it was made
  std::vector<int> members;  // their ranks in the whole program, by rank in the group
  ebbtide::dryrun::GroupPlace place;
};
