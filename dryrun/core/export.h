// Marks what the simulated device's library offers to the stand-ins.
#pragma once

#define EBBTIDE_DRYRUN_API __attribute__((visibility("default")))
