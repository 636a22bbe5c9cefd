#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/auth/verifier.h"
#include "base/clock.h"
#include "base/http/router.h"
#include "base/result.h"
#include "chunkstore/meta_store.h"
#include "controlplane/identity/options.h"

namespace controlplane::identity {

// What a fresh installation begins with.
struct BootstrapRequest {
  // Of the user admin, if it is made now; an existing one keeps its own ...
  std::string admin_password;
  // ... unless this is set: then it gets this one, and its tokens end. For an operator who lost it.
  bool reset_admin_password = false;
  std::string region = "RegionOne";
  struct Service {
    std::string type;  // "image"
    std::string name;  // "glance"
    std::string url;   // a template (catalog.h): "$(base_url)s/image"
  };
  // Beside identity itself. One endpoint each for public, internal and admin.
  std::vector<Service> services;
};

// The Identity API v3 under /identity, over records in one partition of a MetaStore (store.h).
// Several Identity objects, in one process or many, may share a MetaStore: each sees the others'
// changes within StoreOptions::refresh_ms. Thread-safe.
class Identity {
 public:
  // Reads all records. `meta` and `clock` are borrowed and outlive it. kUnavailable, kCorruption,
  // kIo.
  static base::Result<std::unique_ptr<Identity>> Open(const Options& options,
                                                      chunkstore::MetaStore& meta,
                                                      const base::Clock& clock);
  ~Identity();

  // Makes what is missing of: the domain Default (id "default"), the projects admin and service,
  // the user admin with the role admin on its project and on the system, the roles admin, member,
  // reader and service with admin implying member implying reader, the region, the services and
  // their endpoints. Run at each start; run again it changes nothing but the URLs of endpoints that
  // are not as asked for.
  base::Result<void> Bootstrap(const BootstrapRequest& request);
  // Is there a user admin in the default domain already?
  base::Result<bool> IsBootstrapped();

  // The routes; they borrow this object.
  base::http::Service service();

  // For the other services of this process. Lives as long as this object.
  base::auth::TokenVerifier& verifier();

  // A new key signs tokens from now on. It also happens by itself (Options::token_key_rotation_ms).
  base::Result<void> RotateTokenKeys();

 private:
  struct Impl;
  explicit Identity(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace controlplane::identity
