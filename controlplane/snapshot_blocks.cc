#include "controlplane/snapshot_blocks.h"

#include <memory>
#include <string_view>
#include <utility>

#include "blockd/api/errors.h"
#include "imaged/block_download.h"
#include "imaged/chunk_download.h"
#include "imaged/chunk_wire.h"

namespace controlplane {

using base::Result;
using base::http::Response;
using blockd::api::Call;
using blockd::api::Route;
using chunkstore::Content;

namespace {

using Answer = Result<Response> (*)(imaged::DataPath&, const Call&, std::shared_ptr<Content>);

Result<Response> Chunks(imaged::DataPath&, const Call& call, std::shared_ptr<Content> content) {
  return imaged::AnswerChunkList(*content, call.request);
}

Result<Response> Blocks(imaged::DataPath& path, const Call& call,
                        std::shared_ptr<Content> content) {
  return imaged::AnswerBlocks(path, call.caller, {std::move(content), nullptr}, call.request.body);
}

Route MakeRoute(const SnapshotLookup& where, imaged::DataPath& path, std::string method,
                std::string_view last, std::string_view body_type, std::string_view answer_type,
                Answer answer) {
  Route route;
  route.method = std::move(method);
  route.pattern = "/quarry/snapshots/{snapshot_id}/" + std::string(last);
  route.handler = [=, &path](const Call& call) -> Result<Response> {
    const std::string& id = call.Param("snapshot_id");
    ASSIGN_OR_RETURN(const chunkstore::Root root, FindSnapshot(where, call.caller, id));
    if (const auto status = imaged::RefusedType(call.request, body_type, answer_type)) {
      const std::string why = imaged::RefusedTypeSentence(call.request, *status, answer_type);
      return blockd::api::ErrorBody(call.request, *status, why);
    }
    const auto read = [&]() -> Result<Response> {
      ASSIGN_OR_RETURN(std::shared_ptr<Content> content, where.store.Open(root));
      return answer(path, call, std::move(content));
    };
    Result<Response> response = read();
    if (response.has_value()) return response;
    // What is deleted meanwhile loses its chunks: then say that it is gone.
    RETURN_IF_ERROR(FindSnapshot(where, call.caller, id));
    return response.error();
  };
  return route;
}

}  // namespace

std::vector<Route> SnapshotBlockRoutes(const SnapshotLookup& where, imaged::DataPath& path) {
  using imaged::kBlocksType;
  return {MakeRoute(where, path, "GET", "chunks", {}, imaged::kChunkListType, Chunks),
          MakeRoute(where, path, "POST", "blocks", kBlocksType, kBlocksType, Blocks)};
}

}  // namespace controlplane
