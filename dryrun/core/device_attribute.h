// Device attributes by the number that the runtime (cudaDeviceAttr) and the driver
// (CUdevice_attribute) share.
#pragma once

#include <optional>

#include "dryrun/core/device_model.h"

namespace ebbtide::dryrun {

// Nothing for an attribute that the simulation has no answer to.
EBBTIDE_DRYRUN_API std::optional<int> device_attribute(const DeviceModel& model, int device,
                                                       int attribute);

}  // namespace ebbtide::dryrun
