#include "base/http/server.h"

#include <gtest/gtest.h>

#include "tests/base/http/test_client.h"
#include "tests/support/results.h"

namespace base::http {
namespace {

TEST(ServerTest, AnswersAGet) {
  Router router;
  Service service{.name = "test", .prefix = "/test"};
  service.routes.push_back({.method = "GET",
                            .pattern = "/hello/{name}",
                            .access = Access::kPublic,
                            .handler = [](const Request& request) -> Result<Response> {
                              return Response::Text(200, "hello " + request.Param("name"),
                                                    "text/plain");
                            }});
  router.Mount(std::move(service));
  async::Pool pool("test", 2, 16);
  Metrics metrics;
  ASSERT_OK_AND_ASSIGN(auto server, Server::Start({}, router, pool, metrics));
  RawClient client(server->address());
  auto answer = client.Exchange("GET /test/hello/world HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.body, "hello world");
}

}  // namespace
}  // namespace base::http
