#include "dryrun/cudnn/descriptor.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace ebbtide::dryrun {

namespace {

std::size_t size_of(cudnnBackendAttributeType_t type) {
  switch (type) {
    case CUDNN_TYPE_BOOLEAN:
    case CUDNN_TYPE_CHAR:
      return 1;
    case CUDNN_TYPE_FRACTION:
      return sizeof(cudnnFraction_t);
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_DOUBLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR:
      return 8;
    default:
      return 4;  // enumerations, float, int32
  }
}

}  // namespace

void Descriptor::set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                     std::int64_t count, const void* elements) {
  const auto length = static_cast<std::size_t>(count);
  Attribute attribute{.count = count, .bytes = {}, .descriptors = {}};
  if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
    const auto* handles = static_cast<const cudnnBackendDescriptor_t*>(elements);
    for (std::size_t i = 0; i < length; ++i) attribute.descriptors.push_back(of(handles[i]));
  } else {
    const auto* from = static_cast<const std::byte*>(elements);
    attribute.bytes.assign(from, from + length * size_of(type));
  }
  attributes_[name] = std::move(attribute);
}

std::int64_t Descriptor::get(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                             std::int64_t room, void* elements) const {
  const Attribute* found = find(name);
  if (found == nullptr) return 0;
  const auto length = static_cast<std::size_t>(std::min(room, found->count));
  if (elements == nullptr || length == 0) return found->count;
  if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
    auto* handles = static_cast<cudnnBackendDescriptor_t*>(elements);
    for (std::size_t i = 0; i < length; ++i) {
      of(handles[i])->attributes_ = found->descriptors[i]->attributes_;
    }
  } else {
    std::memcpy(elements, found->bytes.data(), std::min(length * size_of(type), found->bytes.size()));
  }
  return found->count;
}

void Descriptor::set_numbers(cudnnBackendAttributeName_t name, std::vector<std::int64_t> values) {
  set(name, CUDNN_TYPE_INT64, static_cast<std::int64_t>(values.size()), values.data());
}

void Descriptor::set_descriptors(cudnnBackendAttributeName_t name,
                                 std::vector<DescriptorRef> values) {
  const auto count = static_cast<std::int64_t>(values.size());
  attributes_[name] = {.count = count, .bytes = {}, .descriptors = std::move(values)};
}

std::vector<std::int64_t> Descriptor::numbers(cudnnBackendAttributeName_t name) const {
  const Attribute* found = find(name);
  if (found == nullptr) return {};
  std::vector<std::int64_t> values(found->bytes.size() / sizeof(std::int64_t));
  std::memcpy(values.data(), found->bytes.data(), values.size() * sizeof(std::int64_t));
  return values;
}

std::vector<DescriptorRef> Descriptor::descriptors(cudnnBackendAttributeName_t name) const {
  const Attribute* found = find(name);
  return found == nullptr ? std::vector<DescriptorRef>{} : found->descriptors;
}

DescriptorRef Descriptor::descriptor(cudnnBackendAttributeName_t name) const {
  const std::vector<DescriptorRef> found = descriptors(name);
  return found.empty() ? nullptr : found.front();
}

int Descriptor::enumerator(cudnnBackendAttributeName_t name) const {
  int value = 0;
  const Attribute* found = find(name);
  if (found != nullptr) std::memcpy(&value, found->bytes.data(), std::min(sizeof value, found->bytes.size()));
  return value;
}

const Attribute* Descriptor::find(cudnnBackendAttributeName_t name) const {
  const auto found = attributes_.find(name);
  return found == attributes_.end() ? nullptr : &found->second;
}

}  // namespace ebbtide::dryrun
