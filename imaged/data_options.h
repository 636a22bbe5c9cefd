#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "imaged/web_fetch.h"

namespace imaged {

// When `checksum` (MD5) is made. It costs more than all the rest of an upload together, and no
// stock client needs it: python-glanceclient verifies by os_hash_value, openstacksdk skips what is
// null.
enum class ChecksumPolicy {
  kOff,         // stays null
  kBackground,  // null until a job at the lowest priority has read the image back
  kInline,      // there when the image becomes active, as Glance has it; uploads are slower
};

// The chunk store's lease is to be so many times DataOptions::lease_ms: then who finds that an
// upload was abandoned can keep what it brought (kept_parts.h) before the store gives it back. Both
// are renewed every third of lease_ms, the store's only once a third of its own is over.
constexpr int64_t kStoreLeases = 3;

// What whoever starts the data path may set; the defaults are those of the service's settings.
struct DataOptions {
  std::string store_id = "quarry";        // as /v2/info/stores names it
  std::string hash_algorithm = "sha256";  // of os_hash_value: sha256 or sha512
  ChecksumPolicy checksum = ChecksumPolicy::kBackground;
  uint64_t max_image_bytes = 16 * base::kTiB;         // image.size_cap; beyond it: 413
  uint64_t upload_memory_bytes = 192 * base::kMiB;    // buffers of all uploads
  uint64_t download_memory_bytes = 128 * base::kMiB;  // decoded pieces of all downloads
  uint64_t kept_bytes = 256 * base::kGiB;  // of a project's uploads that broke off; 0: none
  int64_t admission_ms = 10'000;           // how long a transfer waits for memory before 503
  int64_t lease_ms = 60'000;               // of an upload on its way
  size_t data_threads = 0;                 // 0: as many as the machine has cores, at least 4
  size_t import_threads = 8;               // imports at once: a slow web server holds one
  size_t project_imports = 4;              // of one project at once; the others wait for their turn
  int64_t sweep_ms = 1'000;                // how often pending releases are looked through
  // Nobody else uses the stores: what a crash left is put right at start, without waiting for
  // leases to run out, and bytes are let go as soon as nobody here reads them. Otherwise they stay
  // for lease_ms after the last process was seen to.
  bool sole_process = true;
  WebFetchOptions web;
  std::vector<std::string> import_methods = {"glance-direct", "web-download", "copy-image"};
};

}  // namespace imaged
