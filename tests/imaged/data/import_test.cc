#include "imaged/import.h"

#include <latch>
#include <set>
#include <string>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/hash.h"
#include "imaged/import_turns.h"
#include "tests/imaged/data/fixture.h"
#include "tests/support/results.h"

namespace imaged {
namespace {

using base::http::Request;
using base::http::Response;

constexpr size_t kChunk = chunkstore::kChunkBytes;

// A web server of our own, with pages that the tests ask for.
class Web {
 public:
  Web() : pool_("web", 4, 64) {
    base::http::Service service;
    service.name = "web";
    auto page = [&](std::string pattern, base::http::Handler handler) {
      base::http::Route route;
      route.method = "GET";
      route.pattern = std::move(pattern);
      route.access = base::http::Access::kPublic;
      route.handler = std::move(handler);
      service.routes.push_back(std::move(route));
    };
    page("/disk", [this](const Request&) {
      ++fetched;
      return Response::Text(200, disk, "application/octet-stream");
    });
    page("/to/{where}", [this](const Request& request) {
      Response response = Response::Empty(302);
      const std::string& where = request.Param("where");
      response.headers.Set("Location", where == "disk"   ? url("/disk")
                                       : where == "loop" ? url("/to/loop")
                                                         : elsewhere);
      return response;
    });
    page("/wait", [this](const Request&) {
      ++waiting;
      go_on.wait();
      return Response::Text(200, disk, "application/octet-stream");
    });
    page("/missing", [](const Request&) { return Response::Text(404, "no", "text/plain"); });
    service.render_error = [](const Request&, int status, const base::Error& error) {
      return Response::Text(status, error.message(), "text/plain");
    };
    router_.Mount(std::move(service));
    auto server = base::http::Server::Start({}, router_, pool_, metrics_);
    EXPECT_OK(server);
    server_ = std::move(*server);
  }
  ~Web() { server_->Stop(); }

  std::string url(const std::string& path) const { return "http://" + server_->address() + path; }
  std::string port() const { return server_->address().substr(server_->address().find(':') + 1); }

  std::string disk;
  std::string elsewhere;
  std::atomic<int> fetched{0};
  std::atomic<int> waiting{0};  // that came to /wait, ever
  std::latch go_on{1};          // what they wait for

 private:
  base::async::Pool pool_;
  base::Metrics metrics_;
  base::http::Router router_;
  std::unique_ptr<base::http::Server> server_;
};

Service::Options Local() {
  Service::Options options = Service::Defaults();
  options.data.web.allowed_networks = {"127.0.0.0/8"};
  return options;
}

Answer Import(Service& service, const std::string& id, std::string_view body,
              std::string_view who = "p1") {
  return service.Call(who, "POST", "/v2/images/" + id + "/import", body);
}
Answer ImportWeb(Service& service, const std::string& id, const std::string& uri,
                 std::string_view who = "p1") {
  return Import(service, id,
                fmt::format(R"({{"method":{{"name":"web-download","uri":"{}"}}}})", uri), who);
}
Answer ImportStaged(Service& service, const std::string& id) {
  return Import(service, id, R"({"method":{"name":"glance-direct"}})");
}
Answer Stage(Service& service, const std::string& id, std::string_view bytes) {
  return service.Call("p1", "PUT", "/v2/images/" + id + "/stage", bytes,
                      "application/octet-stream");
}

// The one task of the image, once it has ended.
base::Json EndedTask(Service& service, const std::string& id, std::string_view who = "p1") {
  base::Json task;
  EXPECT_TRUE(service.Eventually([&] {
    Answer answer = service.Call(who, "GET", "/v2/images/" + id + "/tasks");
    auto body = base::ParseJson(answer.body);
    EXPECT_OK(body);
    const base::JsonArray& tasks = base::Find(*body, "tasks")->as_array();
    if (tasks.empty()) return false;
    task = tasks[0];
    std::string status = base::FindString(task, "status").value_or("");
    return status == "success" || status == "failure";
  }));
  return task;
}
std::string EndOf(Service& service, const std::string& id, std::string_view who = "p1") {
  base::Json task = EndedTask(service, id, who);
  return base::FindString(task, "status").value_or("") + ": " +
         base::FindString(task, "message").value_or("");
}

TEST(Import, TakesWhatWasStaged) {
  Service service;
  std::string bytes = RandomBytes(2 * kChunk + 3);
  std::string id = service.CreateImage();
  ASSERT_EQ(Stage(service, id, bytes).status, 204);
  EXPECT_EQ(service.ImageOf(id).status, Status::kUploading);
  EXPECT_EQ(service.Download(id).status, 204);
  uint64_t stored = service.BytesAfterCollect();
  Answer answer = ImportStaged(service, id);
  EXPECT_EQ(answer.status, 202) << answer.body;
  base::Json task = EndedTask(service, id);
  EXPECT_EQ(base::FindString(task, "status"), "success");
  EXPECT_EQ(base::FindString(task, "request_id"), answer.Field("x-openstack-request-id"));
  const base::Json* request = base::Find(*base::Find(task, "input"), "import_req");
  EXPECT_EQ(base::FindString(*base::Find(*request, "method"), "name"), "glance-direct");
  Image image = service.ImageOf(id);
  EXPECT_EQ(image.status, Status::kActive);
  EXPECT_EQ(image.staged, std::nullopt);
  EXPECT_EQ(image.virtual_size_bytes, bytes.size());
  EXPECT_EQ(image.os_hash_value, base::Sha256(base::AsBytes(bytes)).hex());
  EXPECT_TRUE(service.Download(id).body == bytes);
  // No byte was moved.
  EXPECT_EQ(service.BytesAfterCollect(), stored);
  EXPECT_EQ(service.Call("p1", "DELETE", "/v2/images/" + id).status, 204);
  EXPECT_EQ(service.BytesAfterCollect(), 0u);
}

TEST(Import, OfStagedBytesThatLieFails) {
  Service service;
  std::string id = service.CreateImage("p1", "qcow2");
  ASSERT_EQ(Stage(service, id, "no qcow2 at all").status, 204);
  EXPECT_EQ(ImportStaged(service, id).status, 202);
  EXPECT_NE(EndOf(service, id).find("failure: the image was declared as qcow2"), std::string::npos);
  EXPECT_EQ(service.ImageOf(id).status, Status::kQueued);
  EXPECT_EQ(base::FindString(service.Show(id), "os_glance_failed_import"), "quarry");
  EXPECT_EQ(service.BytesAfterCollect(), 0u);
}

TEST(Import, IsRefusedInTheWrongState) {
  Service service;
  std::string id = service.CreateImage();
  auto message = [&](std::string_view body, int status) {
    Answer answer = Import(service, id, body);
    EXPECT_EQ(answer.status, status) << body << answer.body;
    return answer.body;
  };
  EXPECT_NE(message(R"({"method":{"name":"glance-direct"}})", 409).find("needs to be staged"),
            std::string::npos);
  EXPECT_NE(message(R"({"method":{"name":"copy-image"}})", 409).find("status active"),
            std::string::npos);
  EXPECT_NE(message(R"({"method":{"name":"teleport"}})", 400).find("Unknown import method"),
            std::string::npos);
  message("{}", 400);
  message(R"({"method":{}})", 400);
  message(R"({"method":"web-download"})", 400);
  message("not json", 400);
  message(R"({"method":{"name":"copy-image"},"all_stores":"yes"})", 400);
  EXPECT_EQ(Import(service, id, R"({"method":{"name":"glance-direct"}})", "p2").status, 404);

  ASSERT_EQ(service.Upload(id, "hello").status, 204);
  EXPECT_NE(message(R"({"method":{"name":"glance-direct"}})", 409)
                .find("Image with status active cannot be target for import"),
            std::string::npos);
  message(R"({"method":{"name":"copy-image"}})", 400);
  message(R"({"method":{"name":"copy-image"},"all_stores":true})", 202);
  EXPECT_EQ(base::FindString(service.Show(id), "os_glance_importing_to_stores"), "");
  EXPECT_EQ(base::FindString(service.Show(id), "os_glance_failed_import"), "");
  message(R"({"method":{"name":"copy-image"},"stores":["elsewhere"]})", 409);
}

TEST(Import, FetchesFromTheWeb) {
  Service service(Local());
  Web web;
  web.disk = RandomBytes(kChunk + 99);
  for (const char* path : {"/disk", "/to/disk"}) {
    std::string id = service.CreateImage();
    Answer answer = ImportWeb(service, id, web.url(path));
    EXPECT_EQ(answer.status, 202) << answer.body;
    EXPECT_EQ(EndOf(service, id), "success: ");
    EXPECT_TRUE(service.Download(id).body == web.disk);
    EXPECT_EQ(service.ImageOf(id).os_hash_value, base::Sha256(base::AsBytes(web.disk)).hex());
  }
}

TEST(Import, FromTheWebThatFailsLeavesNothing) {
  Service::Options options = Local();
  options.data.max_image_bytes = 2 * kChunk;
  Service service(options);
  Web web;
  auto outcome = [&](const std::string& uri, std::string_view disk_format = "raw") {
    std::string id = service.CreateImage("p1", disk_format);
    EXPECT_EQ(ImportWeb(service, id, uri).status, 202);
    std::string end = EndOf(service, id);
    EXPECT_EQ(service.ImageOf(id).status, Status::kQueued);
    return end;
  };
  EXPECT_NE(outcome(web.url("/missing")).find("failure: the server of the URI answered 404"),
            std::string::npos);
  EXPECT_NE(outcome(web.url("/to/loop")).find("failure"), std::string::npos);
  web.disk = "QFI\xfb and so on";
  EXPECT_NE(outcome(web.url("/disk")).find("declared as raw"), std::string::npos);
  web.disk = RandomBytes(2 * kChunk + 1);
  EXPECT_NE(outcome(web.url("/disk")).find("larger than"), std::string::npos);
  EXPECT_NE(outcome("http://does-not.exist.invalid/disk").find("failure"), std::string::npos);
  EXPECT_EQ(service.BytesAfterCollect(), 0u);
}

TEST(Import, FetchesFromNowhereInside) {
  Service service;  // no network is allowed
  Web web;
  web.disk = "secret";
  std::string id = service.CreateImage();
  for (const std::string& uri :
       {web.url("/disk"), "http://localhost:" + web.port() + "/disk",
        std::string("http://169.254.169.254/latest"), std::string("http://[::1]/x"),
        std::string("http://[::ffff:127.0.0.1]/x"), std::string("http://2130706433/x"),
        std::string("file:///etc/passwd"), std::string("http://user@example.com/"),
        std::string("")}) {
    Answer answer = ImportWeb(service, id, uri);
    EXPECT_EQ(answer.status, 400) << uri;
    EXPECT_NE(answer.body.find("does not pass filtering"), std::string::npos);
  }
  EXPECT_EQ(web.fetched, 0);
}

// What the name servers know is not told: a name that leads inside, one that is not there, one that
// is not looked up in time, and a host that does not answer read the same.
TEST(Import, TellsNothingOfTheNamesInside) {
  auto answered = std::make_shared<std::latch>(1);
  Service::Options options = Service::Defaults();
  options.data.web.disallowed_hosts = {"evil.example"};
  options.data.web.allowed_networks = {"127.0.0.2"};
  options.data.web.resolve_timeout_ms = 1;
  options.data.web.lookup =
      [answered](const std::string& host) -> base::Result<std::vector<std::string>> {
    if (host == "inside.example") return std::vector<std::string>{"127.0.0.1", "10.0.0.1"};
    if (host == "closed.example") return std::vector<std::string>{"127.0.0.2"};
    if (host == "slow.example") answered->wait();
    return base::Error(base::Code::kUnavailable, "no such name: " + host);
  };
  Service service(options);
  Web web;
  std::set<std::string> ends;
  for (const char* host : {"inside.example", "nowhere.example", "slow.example", "closed.example"}) {
    std::string id = service.CreateImage();
    EXPECT_EQ(ImportWeb(service, id, fmt::format("http://{}:{}/disk", host, web.port())).status,
              202);
    ends.insert(EndOf(service, id));
    EXPECT_EQ(service.ImageOf(id).status, Status::kQueued);
  }
  answered->count_down();
  EXPECT_EQ(web.fetched, 0);
  ASSERT_EQ(ends.size(), 1u) << *ends.rbegin();
  EXPECT_NE(ends.begin()->find("failure: the URI can't be fetched"), std::string::npos);
}

TEST(Import, ThatTakesTooLongIsGivenUp) {
  Service::Options options = Local();
  options.data.web.deadline_ms = 1;
  Service service(options);
  Web web;
  web.disk = RandomBytes(3 * kChunk);
  std::string id = service.CreateImage();
  EXPECT_EQ(ImportWeb(service, id, web.url("/wait")).status, 202);
  EXPECT_NE(EndOf(service, id).find("failure"), std::string::npos);
  EXPECT_EQ(service.ImageOf(id).status, Status::kQueued);
  web.go_on.count_down();
}

TEST(Import, WaitsForTheMemoryThatUploadsHold) {
  Service::Options options = Local();
  options.data.upload_memory_bytes = kChunk;
  options.data.admission_ms = 60'000;
  Service service(options);
  Web web;
  web.disk = RandomBytes(100);
  std::string held = service.CreateImage();
  RawClient upload(service.address());
  upload.Send(Service::Head("p1", "PUT", "/v2/images/" + held + "/file",
                            "Content-Type: application/octet-stream\r\nContent-Length: 10\r\n"));
  ASSERT_TRUE(service.Eventually([&] { return service.path().upload_buffers()->in_use() == 1; }));
  std::string id = service.CreateImage();
  EXPECT_EQ(ImportWeb(service, id, web.url("/disk")).status, 202);
  ASSERT_TRUE(service.Eventually([&] {
    const auto task = service.path().tasks().OfImage(id);
    return task.has_value() && task->front().status != "pending";
  }));
  EXPECT_EQ(service.ImageOf(id).status, Status::kImporting);
  upload.Close();
  EXPECT_EQ(EndOf(service, id), "success: ");
}

// A project's imports beyond its limit wait, and nobody else for them.
TEST(Import, OfOneProjectLeaveTurnsToOthers) {
  Service::Options options = Local();
  options.data.import_threads = 3;
  options.data.project_imports = 2;
  Service service(options);
  Web web;
  web.disk = RandomBytes(100);
  std::vector<std::string> mine;
  for (int i = 0; i < 5; ++i) {
    mine.push_back(service.CreateImage());
    EXPECT_EQ(ImportWeb(service, mine.back(), web.url("/wait")).status, 202);
  }
  ASSERT_TRUE(service.Eventually([&] { return web.waiting == 2; }));
  std::string theirs = service.CreateImage("p2");
  EXPECT_EQ(ImportWeb(service, theirs, web.url("/disk"), "p2").status, 202);
  EXPECT_EQ(EndOf(service, theirs, "p2"), "success: ");
  EXPECT_EQ(web.waiting, 2);
  EXPECT_NE(service.metrics().Render().find("quarry_imaged_imports_waiting 3"), std::string::npos);
  web.go_on.count_down();
  for (const std::string& id : mine) EXPECT_EQ(EndOf(service, id), "success: ");
  EXPECT_EQ(web.waiting, 5);
}

TEST(ImportTurns, AreTheProjectsWithTheFewestAtWork) {
  auto job = [](const std::string& project) {
    chunkstore::jobs::Job made;
    made.payload = EncodeImport({"task", "image", "holder", "web-download", "", project});
    return made;
  };
  const chunkstore::jobs::Choose next = ImportTurns(2);
  EXPECT_EQ(next({}, {}), std::nullopt);
  EXPECT_EQ(next({}, {job("a"), job("b")}), 0u);
  EXPECT_EQ(next({job("a")}, {job("a"), job("b"), job("b")}), 1u);
  EXPECT_EQ(next({job("a"), job("b")}, {job("a"), job("b")}), 0u);
  EXPECT_EQ(next({job("a"), job("a"), job("b")}, {job("a"), job("b")}), 1u);
  EXPECT_EQ(next({job("a"), job("a")}, {job("a"), job("a")}), std::nullopt);
}

TEST(Import, LooksAtEachRedirectAgain) {
  Service service(Local());
  Web web;
  for (const char* elsewhere : {"http://169.254.169.254/latest/meta-data", "http://10.0.0.1/",
                                "http://[fe80::1]/", "file:///etc/passwd"}) {
    web.elsewhere = elsewhere;
    std::string id = service.CreateImage();
    EXPECT_EQ(ImportWeb(service, id, web.url("/to/elsewhere")).status, 202);
    EXPECT_NE(EndOf(service, id).find("failure"), std::string::npos) << elsewhere;
    EXPECT_EQ(service.ImageOf(id).status, Status::kQueued);
  }
}

// What the lists refuse is refused in each of its forms, and by what a redirect says as well.
TEST(Import, LooksAtTheFormOfARedirectsHost) {
  Service::Options options = Local();
  options.data.web.disallowed_hosts = {"127.0.0.1"};
  options.data.web.lookup = [](const std::string&) {
    return base::Result<std::vector<std::string>>({"127.0.0.1"});
  };
  Service service(options);
  Web web;
  for (const char* host : {"127.1", "0x7f000001", "2130706433"}) {
    web.elsewhere = fmt::format("http://{}:{}/disk", host, web.port());
    const std::string id = service.CreateImage();
    const std::string first = fmt::format("http://front.example:{}/to/elsewhere", web.port());
    EXPECT_EQ(ImportWeb(service, id, first).status, 202);
    EXPECT_NE(EndOf(service, id).find("failure"), std::string::npos) << host;
  }
  EXPECT_EQ(web.fetched, 0);
}

TEST(Import, TasksAreTheirOwnersToSee) {
  Service service;
  std::string id = service.CreateImage();
  ASSERT_EQ(Stage(service, id, "hello").status, 204);
  ASSERT_EQ(ImportStaged(service, id).status, 202);
  std::string task = base::FindString(EndedTask(service, id), "id").value();
  EXPECT_EQ(service.Call("p1", "GET", "/v2/tasks/" + task).status, 200);
  EXPECT_EQ(service.Call("admin", "GET", "/v2/tasks/" + task).status, 200);
  EXPECT_EQ(service.Call("p2", "GET", "/v2/tasks/" + task).status, 404);
  EXPECT_EQ(service.Call("p2", "GET", "/v2/images/" + id + "/tasks").status, 404);
  Answer list = service.Call("p1", "GET", "/v2/tasks?limit=1&sort_key=id&sort_dir=asc");
  EXPECT_EQ(list.status, 200);
  EXPECT_NE(list.body.find(task), std::string::npos);
  EXPECT_EQ(service.Call("p2", "GET", "/v2/tasks").body.find(task), std::string::npos);
  EXPECT_EQ(service.Call("p1", "GET", "/v2/tasks?sort_dir=up").status, 400);
  EXPECT_EQ(service.Call("p1", "GET", "/v2/tasks?limit=many").status, 400);
  EXPECT_EQ(service.Call("p1", "POST", "/v2/tasks", "{}").status, 403);
}

// --- after a crash

TEST(Recovery, PutsAnUploadBackToQueued) {
  Service service;
  std::string id = service.CreateImage();
  std::string holder = NewHolder(id);
  auto fine = [](const Image&) { return base::Result<void>(); };
  ASSERT_OK(service.catalog().BeginUpload(id, UploadKind::kData, holder, 60'000, 5, fine));
  EXPECT_EQ(service.ImageOf(id).status, Status::kSaving);
  service.Restart();
  EXPECT_EQ(service.ImageOf(id).status, Status::kQueued);
  ASSERT_OK_AND_ASSIGN(Usage usage, service.catalog().UsageOfProject("p1"));
  EXPECT_EQ(usage.bytes, 0u);
  EXPECT_EQ(service.Upload(id, "hello").status, 204);
}

TEST(Recovery, LetsGoOfBytesThatNoRecordNames) {
  Service service;
  std::string id = service.CreateImage();
  std::string bytes = RandomBytes(kChunk);
  ASSERT_EQ(service.Upload(id, bytes).status, 204);
  uint64_t before = service.BytesAfterCollect();
  // An upload that had put all its bytes when it was cut off.
  ASSERT_OK_AND_ASSIGN(auto ingest, service.store().NewIngest(NewHolder(id), ""));
  ASSERT_OK(ingest->Put(0, base::AsBytes(RandomBytes(kChunk, 2))));
  ASSERT_OK(ingest->Finish(kChunk));
  ingest.reset();
  EXPECT_GT(service.BytesAfterCollect(), before + kChunk / 2);
  service.Restart();
  EXPECT_EQ(service.BytesAfterCollect(), before);
  EXPECT_TRUE(service.Download(id).body == bytes);
}

TEST(Recovery, FinishesAnImport) {
  Service service(Local());
  Web web;
  web.disk = RandomBytes(kChunk);
  auto fine = [](const Image&) { return base::Result<void>(); };
  for (const char* method : {"glance-direct", "web-download"}) {
    std::string id = service.CreateImage();
    if (std::string(method) == "glance-direct") {
      ASSERT_EQ(Stage(service, id, web.disk).status, 204);
    }
    std::string holder = NewHolder(id);
    ASSERT_OK(service.catalog().BeginUpload(id, UploadKind::kImport, holder, 60'000, 0, fine));
    ImportTask task;
    task.image_id = id;
    task.owner = "p1";
    ASSERT_OK_AND_ASSIGN(task, service.path().tasks().Create(task));
    // Taken by a process that has died since; this one leaves it alone until it is restarted.
    chunkstore::jobs::Journal dead(service.meta(), base::SystemClock(), "imaged-jobs", "dead");
    service.path().Stop();
    ASSERT_OK(dead.Add(kImportJob, EncodeImport({task.id, id, holder, method, web.url("/disk")})));
    ASSERT_OK_AND_ASSIGN(auto taken, dead.Claim(kImportJob, 3'600'000));
    ASSERT_TRUE(taken.has_value());
    service.Restart();
    EXPECT_EQ(EndOf(service, id), "success: ");
    EXPECT_TRUE(service.Download(id).body == web.disk);
  }
}

TEST(Recovery, FailsATaskWhoseJobIsLost) {
  Service service;
  std::string id = service.CreateImage();
  ImportTask task;
  task.image_id = id;
  task.owner = "p1";
  ASSERT_OK(service.path().tasks().Create(task));
  service.Restart();
  EXPECT_NE(EndOf(service, id).find("failure"), std::string::npos);
}

TEST(Recovery, OfAnotherProcessWaitsForTheLease) {
  Service::Options options = Service::Defaults();
  options.data.sole_process = false;
  Service service(options);
  std::string id = service.CreateImage();
  auto fine = [](const Image&) { return base::Result<void>(); };
  ASSERT_OK(
      service.catalog().BeginUpload(id, UploadKind::kData, NewHolder(id), 3'600'000, 0, fine));
  ASSERT_OK(Reconcile(service.path(), Recovery::kRunning));
  EXPECT_EQ(service.ImageOf(id).status, Status::kSaving);
  std::string late = service.CreateImage();
  ASSERT_OK(service.catalog().BeginUpload(late, UploadKind::kData, NewHolder(late), -1, 0, fine));
  ASSERT_OK(Reconcile(service.path(), Recovery::kRunning));
  EXPECT_EQ(service.ImageOf(late).status, Status::kQueued);
}

}  // namespace
}  // namespace imaged
