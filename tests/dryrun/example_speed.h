// A device with round numbers, so that times can be worked out by hand.
#pragma once

#include "dryrun/core/device_model.h"

namespace ebbtide::dryrun {

// 100 TFLOP/s and 1 TB/s at the peak, half of which is reached (a quarter in attention's backward);
// 10 GB/s to the host, of 16 GB/s for both directions; 100 GB/s to a peer, 10 GB/s through a
// device's adapter.
inline DeviceSpeed example_speed() {
  DeviceSpeed speed;
  speed.peak_flops.fill(100e12);
  speed.memory_bandwidth = 1e12;
  speed.to_host = speed.to_device = 20e9;
  speed.devices_per_link = 2;
  speed.peer_bandwidth = 200e9;
  speed.devices_per_node = 4;
  speed.network_bandwidth = 20e9;
  speed.network = 0.5;
  speed.collective_seconds = 10e-6;
  speed.peer_hop_seconds = 1e-6;
  speed.network_hop_seconds = 4e-6;
  speed.matrix = speed.attention_forward = speed.memory = speed.host_link = speed.peer_link = 0.5;
  speed.attention_backward = 0.25;
  speed.host_link_both = 0.4;
  speed.host_link_pageable = 0.1;
  return speed;
}

}  // namespace ebbtide::dryrun
