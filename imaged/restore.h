#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "chunkstore/chunk_store.h"
#include "chunkstore/meta_store.h"
#include "imaged/catalog.h"
#include "imaged/data_options.h"

namespace imaged {

struct RestoreReport {
  std::vector<std::string> restored;  // image ids that have a record again
  std::vector<std::string> skipped;   // what could not be told of them, with the reason
  // How many of the restored ones each project owns; "": nobody. Projects are not in the blobs: if
  // they were lost as well, the ids say nothing to anybody, and an admin gives the images away.
  std::map<std::string, size_t> owners;
};

// Makes records again of images whose data holders are there and whose records are lost, from what
// the holders carry: the record as it was when the upload began (EncodeImage). What was changed
// after that (a new name, members) is not known any more; digests are computed from the bytes. An
// image that has a record is left alone, but for one that an earlier run did not finish. No bytes
// are given up: where a holder carries no record, the image comes back as nobody's (the admin sees
// it), named "recovered"; where the bytes can't be read through, it comes back without a digest.
// Digests follow the policy of uploads: `options.hash_algorithm` is computed here, the checksum too
// if it is kInline; kBackground leaves a job for the service, unless the bytes' MD5 is known.
// `meta`: the catalog's store. Of `options` only store_id, hash_algorithm and checksum are used.
// `go_on` is asked between images. REQUIRES: no service uses the stores.
base::Result<RestoreReport> RestoreImages(chunkstore::ChunkStore& store,
                                          chunkstore::MetaStore& meta, Catalog& catalog,
                                          const DataOptions& options,
                                          const std::function<bool()>& go_on);

}  // namespace imaged
