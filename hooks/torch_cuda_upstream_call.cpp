#include "hooks/torch_cuda_upstream_call.h"

#include <memory>
#include <utility>

namespace ebbtide {

constinit thread_local UpstreamCall::State UpstreamCall::state_{0, nullptr};

void UpstreamCall::keep(void* address) {
  if (state_.blocks == nullptr) state_.blocks = new std::vector<void*>();
  state_.blocks->push_back(address);
}

std::vector<void*> UpstreamCall::take() {
  const std::unique_ptr<std::vector<void*>> blocks(std::exchange(state_.blocks, nullptr));
  return blocks == nullptr ? std::vector<void*>() : std::move(*blocks);
}

}  // namespace ebbtide
