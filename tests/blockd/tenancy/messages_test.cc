#include <gmock/gmock.h>

#include "tests/blockd/tenancy/world.h"

namespace blockd::tenancy {
namespace {

using base::Code;
using base::http::Response;
using testing::UnorderedElementsAre;

class MessagesTest : public TenancyTest {
 protected:
  std::string Tell(std::string_view project, const std::string& text) {
    api_.clock.AdvanceUs(1);
    MessageRecord message;
    message.project_id = std::string(project);
    message.event_id = "VOLUME_VOLUME_001_003";
    message.user_message = text;
    message.request_id = "req-7";
    message.resource_type = "VOLUME";
    message.resource_id = "some-volume";
    EXPECT_OK(api_.catalog.Transact([&](Transaction& transaction) -> base::Result<void> {
      MessageRecord draft = message;
      draft.id.clear();
      ASSIGN_OR_RETURN(message, messages_.Add(transaction, std::move(draft)));
      return {};
    }));
    return message.id;
  }
};

TEST_F(MessagesTest, AreShownToTheirProject) {
  const std::string first = Tell(kMyProject, "one");
  const std::string second = Tell(kMyProject, "two");
  Tell(kYourProject, "three");
  const Response list = Ask(me_, "GET", "/messages", "", 3);
  EXPECT_EQ(At(BodyOf(list), "messages").get_array().size(), 2u);
  EXPECT_EQ(TextAt(list, "messages", 0, "id"), second);
  EXPECT_THAT(NamesOf(At(BodyOf(list), "messages", 0)),
              UnorderedElementsAre("id", "event_id", "user_message", "message_level", "created_at",
                                   "guaranteed_until", "request_id", "links", "resource_type",
                                   "resource_uuid"));
  EXPECT_EQ(TextAt(Ask(me_, "GET", "/messages/" + first), "message", "user_message"), "one");
  EXPECT_EQ(Message(Ask(you_, "GET", "/messages/" + first), "itemNotFound"),
            "Message " + first + " could not be found.");
  EXPECT_EQ(Ask(me_, "GET", "/messages", "", 2).status, 404);
  EXPECT_EQ(
      At(BodyOf(Ask(me_, "GET", "/messages?resource_type=BACKUP")), "messages").get_array().size(),
      0u);
}

TEST_F(MessagesTest, AreDeletedByTheirProject) {
  const std::string id = Tell(kMyProject, "one");
  EXPECT_EQ(Ask(Reader(), "DELETE", "/messages/" + id).status, 403);
  EXPECT_EQ(Ask(you_, "DELETE", "/messages/" + id).status, 404);
  EXPECT_EQ(Ask(me_, "DELETE", "/messages/" + id).status, 204);
  EXPECT_EQ(Ask(me_, "DELETE", "/messages/" + id).status, 404);
  EXPECT_EQ(Ask(me_, "GET", "/messages").body, R"({"messages":[]})");
}

TEST_F(MessagesTest, GoWhenTheirTimeIsOverOrThereAreTooMany) {
  const std::string old = Tell(kMyProject, "old");
  api_.clock.AdvanceUs(kMessageLifeUs + 1);
  EXPECT_ERROR(messages_.Get(old), Code::kNotFound);
  EXPECT_TRUE(messages_.List(kMyProject)->empty());
  const std::string first = Tell(kMyProject, "first");
  int records = 0;
  ASSERT_OK(api_.catalog.ScanKeys("m/", [&](std::string_view, std::string_view) {
    ++records;
    return true;
  }));
  EXPECT_EQ(records, 2);  // of the new one, by project and by id
  for (size_t i = 0; i < kMaxMessagesOfAProject; ++i) Tell(kMyProject, "more");
  EXPECT_EQ(messages_.List(kMyProject)->size(), kMaxMessagesOfAProject);
  EXPECT_ERROR(messages_.Get(first), Code::kNotFound);
}

}  // namespace
}  // namespace blockd::tenancy
