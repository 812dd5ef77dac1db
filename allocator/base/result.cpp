#include "allocator/base/result.h"

namespace ebbtide {

const char* to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument: return "invalid_argument";
    case ErrorCode::kOutOfDeviceMemory: return "out_of_device_memory";
    case ErrorCode::kOutOfHostMemory: return "out_of_host_memory";
    case ErrorCode::kInfeasible: return "infeasible";
    case ErrorCode::kTimeout: return "timeout";
    case ErrorCode::kPlanMismatch: return "plan_mismatch";
    case ErrorCode::kBadPlan: return "bad_plan";
    case ErrorCode::kBadTrace: return "bad_trace";
    case ErrorCode::kUnsupported: return "unsupported";
    case ErrorCode::kSystem: return "system";
  }
  return "unknown";
}

}  // namespace ebbtide
