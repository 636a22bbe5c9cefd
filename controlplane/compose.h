#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "controlplane/settings.h"
#include "imaged/data_options.h"

namespace controlplane {

// The whole service over one data directory: stores, identity, images, maintenance, one HTTP
// server. The composition root: from settings to objects, and the only place that knows which
// implementations the rooms are handed.
class Quarry {
 public:
  // Opens everything and serves. When it returns, the endpoint file is written, and clouds.yaml if
  // the identity is our own. `settings` is borrowed. kInvalidArgument names the option that is
  // wrong.
  static base::Result<std::unique_ptr<Quarry>> Start(const Settings& settings);
  virtual ~Quarry() = default;

  // "http://127.0.0.1:9696": where it listens.
  virtual const std::string& base_url() const = 0;
  // Under which clients reach it: the setting public_url, or else base_url().
  virtual const std::string& public_url() const = 0;
  // True if this start made clouds.yaml, with a new password.
  virtual bool first_start() const = 0;

  // No new work; lets what is in progress end, or be rolled back at the next start. Blocks;
  // idempotent.
  virtual void Stop() = 0;
};

// What the setting image.checksum names.
imaged::ChecksumPolicy ChecksumOf(const std::string& name);

}  // namespace controlplane
