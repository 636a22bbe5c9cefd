#include "blockd/service.h"

#include "base/http/errors.h"
#include "tests/blockd/world.h"

namespace blockd {
namespace {

class NoVerifier : public base::auth::TokenVerifier {
 public:
  base::Result<CallerPtr> Verify(std::string_view) override {
    return base::Error(base::Code::kUnauthenticated, "no token");
  }
};

TEST(BlockServiceTest, SaysWhereToGoAndWhenToComeAgain) {
  BlockWorld world;
  const Context context = {world.service_options, *world.catalog, *world.jobs, *world.types,
                           world.store,           world.exports,  world.images};
  NoVerifier verifier;
  const BlockService block(world.service_options, context, verifier, {}, {});
  const base::http::Service service = block.service();
  EXPECT_EQ(service.prefix, "/volume");
  EXPECT_FALSE(service.routes.empty());
  base::http::Request request;
  request.base_url = "http://h:1";
  const auto unknown =
      service.render_error(request, 401, base::Error(base::Code::kUnauthenticated, "who?"));
  EXPECT_EQ(unknown.headers.Get("WWW-Authenticate"), "Keystone uri=\"http://h:1/identity/v3\"");
  const auto busy =
      service.render_error(request, 503, base::Error(base::Code::kUnavailable, "later"));
  EXPECT_EQ(busy.headers.Get("Retry-After"), "2");
  EXPECT_FALSE(service.render_error(request, 404, base::Error(base::Code::kNotFound, "none"))
                   .headers.Has("Retry-After"));
}

}  // namespace
}  // namespace blockd
