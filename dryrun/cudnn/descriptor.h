// What a cudnnBackendDescriptor_t made here points to: attributes, as they were set.
#pragma once

#include <cudnn_graph.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

namespace ebbtide::dryrun {

class Descriptor;
using DescriptorRef = std::shared_ptr<Descriptor>;

// The elements of one attribute: descriptors, or bytes.
struct Attribute {
  std::int64_t count = 0;
  std::vector<std::byte> bytes;
  std::vector<DescriptorRef> descriptors;
};

// A node of an operation graph, an engine, a plan: cuDNN keeps all of these alike, and so does this. A
// descriptor lives until its owner destroys it and no other descriptor names it. Not thread-safe, as cuDNN's.
class Descriptor : public std::enable_shared_from_this<Descriptor> {
 public:
  explicit Descriptor(cudnnBackendDescriptorType_t type) : type_(type) {}

  static DescriptorRef of(cudnnBackendDescriptor_t handle) {
    return static_cast<Descriptor*>(handle)->shared_from_this();
  }

  cudnnBackendDescriptorType_t type() const { return type_; }

  // Kept for the program that made it, until that destroys it.
  void own() { self_ = shared_from_this(); }
  void disown() { self_.reset(); }

  void set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::int64_t count,
           const void* elements);
  // Copies at most `room` elements out, descriptors into those that stand there; returns how many there are.
  std::int64_t get(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                   std::int64_t room, void* elements) const;

  void set_numbers(cudnnBackendAttributeName_t name, std::vector<std::int64_t> values);
  void set_descriptors(cudnnBackendAttributeName_t name, std::vector<DescriptorRef> values);
  // Empty, null or 0 where nothing was set.
  std::vector<std::int64_t> numbers(cudnnBackendAttributeName_t name) const;
  std::vector<DescriptorRef> descriptors(cudnnBackendAttributeName_t name) const;
  DescriptorRef descriptor(cudnnBackendAttributeName_t name) const;
  int enumerator(cudnnBackendAttributeName_t name) const;

 private:
  const Attribute* find(cudnnBackendAttributeName_t name) const;

  cudnnBackendDescriptorType_t type_;
  DescriptorRef self_;
  std::map<cudnnBackendAttributeName_t, Attribute> attributes_;
};

}  // namespace ebbtide::dryrun
