// What the environment asks of the simulation, read once.
//
//   EBBTIDE_DRYRUN_DEVICE         h200 (default), another name in the folder of device files, or a path
//   EBBTIDE_DRYRUN_DEVICES        folder of device files (default: beside the library)
//   EBBTIDE_DRYRUN_CAPACITY       bytes of each device, e.g. 141GB, 80GiB (default: the device's
//                                 own)
//   EBBTIDE_DRYRUN_COUNT          number of devices, 1 (default) to 16
//   EBBTIDE_DRYRUN_PINNED         host memory that can be pinned (default: as much as is asked for)
//   EBBTIDE_DRYRUN_FAIL           the n-th call that can fail (core/faults.h) does; default: none
//   EBBTIDE_DRYRUN_REPORT         file for the JSON report at exit
//   EBBTIDE_DRYRUN_TIMELINE       file for the streams' timeline, as JSON, at exit
//   EBBTIDE_DRYRUN_STEPS          the program ends after so many training steps (default: by itself)
//   EBBTIDE_DRYRUN_RANKS          processes that share links with this one (default: 1)
//   EBBTIDE_DRYRUN_TYPICAL        what stands for values that are not computed (core/typical.h)
//   EBBTIDE_DRYRUN_BARE           1: kernels do nothing and no more is done, no time and no values
//                                 (what a dry run is measured against)
//   EBBTIDE_DRYRUN_COMPUTE_LIMIT  largest tensor that is computed and copied for real (64MiB)
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include "allocator/base/result.h"
#include "allocator/base/units.h"
#include "dryrun/core/device_model.h"
#include "dryrun/core/typical.h"

namespace ebbtide::dryrun {

struct Settings {
  DeviceModel model;
  Bytes capacity;
  int device_count = 1;
  Bytes pinnable{std::numeric_limits<std::int64_t>::max()};
  std::int64_t failing_call = 0;  // counted from 1; 0: none
  std::string report_path;
  std::string timeline_path;  // of the streams' timeline; empty: it is not kept
  int last_step = 0;          // the program is ended after so many training steps; 0: it is not
  int ranks = 1;              // processes like this one, each on devices of its own
  bool is_bare = false;       // no virtual time, no values
  TypicalValues typical;
  Bytes compute_limit{std::int64_t{64} << 20};
};

// "141GB" is 141e9, "80GiB" is 80 * 2^30; a number without a unit counts bytes.
EBBTIDE_DRYRUN_API Result<Bytes> parse_size(std::string_view text);
Result<Settings> read_settings();

}  // namespace ebbtide::dryrun
