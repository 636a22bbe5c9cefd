#include <atomic>
#include <thread>

#include <gmock/gmock.h>

#include "base/uuid.h"
#include "tests/blockd/types/world.h"

namespace blockd::types {
namespace {

using base::Code;
using base::Result;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

TEST(VolumeTypeTest, RecordsComeBackAsTheyWere) {
  VolumeType type;
  type.id = base::NewUuid();
  type.name = "schnell \"ä\"";
  type.description = "";
  type.is_public = false;
  type.extra_specs = {{"multiattach", "<is> True"}, {"quarry:provisioning", "thick"}};
  type.qos_specs_id = base::NewUuid();
  type.projects = {"a", "b"};
  type.deleting = true;
  type.created_at_us = 5;
  type.updated_at_us = 6;
  EXPECT_EQ(*DecodeType(Encode(type)), type);
  EXPECT_TRUE(type.MultiAttach());
  EXPECT_TRUE(type.Thick());
  type.description.reset();
  EXPECT_EQ(*DecodeType(Encode(type)), type);

  QosSpec spec;
  spec.id = base::NewUuid();
  spec.name = "gold";
  spec.consumer = Consumer::kBoth;
  spec.specs = {{"total_iops_sec", "500"}};
  spec.type_ids = {type.id};
  EXPECT_EQ(*DecodeQosSpec(Encode(spec)), spec);
}

TEST(VolumeTypeTest, ADamagedRecordIsSaidToBeOne) {
  for (const char* bad : {"", "{}", "[]", R"({"version": 2})", R"({"version": 1, "id": 5})"}) {
    EXPECT_ERROR(DecodeType(bad), Code::kCorruption) << bad;
    EXPECT_ERROR(DecodeQosSpec(bad), Code::kCorruption) << bad;
  }
  QosSpec spec;
  std::string bytes = Encode(spec);
  bytes.replace(bytes.find("back-end"), 8, "sideways");
  EXPECT_ERROR(DecodeQosSpec(bytes), Code::kCorruption);
}

using TypeStoreTest = TypesTest;

TEST_F(TypeStoreTest, StartMakesTheDefaultOnce) {
  ASSERT_OK_AND_ASSIGN(const VolumeType standard, types_.GetByName(kDefaultTypeName));
  EXPECT_TRUE(standard.is_public);
  ASSERT_OK(types_.Start());
  EXPECT_EQ(types_.List()->size(), 1u);
  EXPECT_EQ(types_.Resolve(*me_, "")->id, standard.id);
}

TEST_F(TypeStoreTest, ResolvesByIdAndNameWhatTheCallerMaySee) {
  const std::string fast = MakeType("fast");
  const std::string secret = MakeType("secret", false);
  EXPECT_EQ(types_.Resolve(*me_, "fast")->id, fast);
  EXPECT_EQ(types_.Resolve(*me_, fast)->name, "fast");
  EXPECT_ERROR(types_.Resolve(*me_, "secret"), Code::kNotFound);
  EXPECT_EQ(types_.Resolve(*me_, secret).error().message(),
            "Volume type " + secret + " could not be found.");
  EXPECT_OK(types_.Resolve(*admin_, "secret"));
  EXPECT_OK(types_.Find(secret));
  ASSERT_OK(types_.Update(secret, [](VolumeType& type) -> Result<void> {
    type.projects.insert(std::string(kMyProject));
    return {};
  }));
  EXPECT_OK(types_.Resolve(*me_, "secret"));
  EXPECT_ERROR(types_.Resolve(*you_, "secret"), Code::kNotFound);
}

TEST_F(TypeStoreTest, FactsCarryWhatTheBackEndEnforces) {
  const std::string type = MakeType("fast");
  const std::string back = MakeQos("back", {{"total_iops_sec", "100"}});
  const std::string front = MakeQos("front", {{"total_iops_sec", "7"}}, Consumer::kFrontEnd);
  ASSERT_OK(types_.Associate(back, type));
  EXPECT_THAT(types_.Find(type)->qos, ElementsAre(Pair("total_iops_sec", "100")));
  EXPECT_ERROR(types_.Associate(front, type), Code::kInvalidArgument);
  ASSERT_OK(types_.Disassociate(back, type));
  ASSERT_OK(types_.Associate(front, type));
  EXPECT_THAT(types_.Find(type)->qos, IsEmpty());
}

TEST_F(TypeStoreTest, ANameIsHeldByOne) {
  const std::string a = MakeType("a");
  const std::string b = MakeType("b");
  VolumeType again;
  again.name = "a";
  EXPECT_ERROR(types_.Create(again), Code::kAlreadyExists);
  const auto rename = [](const char* name) {
    return [name](VolumeType& type) -> Result<void> {
      type.name = name;
      return {};
    };
  };
  EXPECT_ERROR(types_.Update(b, rename("a")), Code::kAlreadyExists);
  ASSERT_OK(types_.Update(a, rename("c")));
  EXPECT_ERROR(types_.GetByName("a"), Code::kNotFound);
  EXPECT_EQ(types_.GetByName("c")->id, a);
  ASSERT_OK(types_.Update(b, rename("a")));
  const std::string standard = types_.GetByName(kDefaultTypeName)->id;
  EXPECT_ERROR(types_.Update(standard, rename("other")), Code::kInvalidArgument);
}

TEST_F(TypeStoreTest, WhatIsInUseStays) {
  const std::string type = MakeType("fast");
  const VolumeRecord volume = api_.AddVolume(kMyProject, 1, type);
  EXPECT_EQ(types_.Delete(type).error().message(), "Target volume type is still in use.");
  EXPECT_FALSE(types_.Get(type)->deleting);
  EXPECT_OK(types_.Resolve(*me_, type));
  ASSERT_OK(
      api_.catalog.Transact([&](Transaction& transaction) { return transaction.Remove(volume); }));
  ASSERT_OK(types_.Delete(type));
  EXPECT_ERROR(types_.Get(type), Code::kNotFound);
  EXPECT_ERROR(types_.GetByName("fast"), Code::kNotFound);
  EXPECT_ERROR(types_.Delete(type), Code::kNotFound);
}

TEST_F(TypeStoreTest, NothingIsMadeOfATypeThatGoes) {
  const std::string type = MakeType("fast");
  // Somebody resolved the type, then it is removed, then he commits.
  int attempts = 0;
  const Result<void> late = api_.catalog.Transact([&](Transaction& transaction) -> Result<void> {
    ++attempts;
    RETURN_IF_ERROR(types_.Use(transaction, type));
    VolumeRecord volume;
    volume.id = base::NewUuid();
    volume.project_id = std::string(kMyProject);
    volume.size_gb = 1;
    volume.type_id = type;
    RETURN_IF_ERROR(transaction.Put(volume));
    if (attempts == 1) EXPECT_OK(types_.Delete(type));
    return {};
  });
  EXPECT_ERROR(late, Code::kNotFound);
  EXPECT_EQ(attempts, 2);
  EXPECT_THAT(*api_.catalog.ListVolumes({}), IsEmpty());
}

TEST_F(TypeStoreTest, AMarkThatACrashLeftIsTakenBack) {
  const std::string type = MakeType("fast");
  ASSERT_OK(types_.Update(type, [](VolumeType& held) -> Result<void> {
    held.deleting = true;
    return {};
  }));
  EXPECT_ERROR(types_.Resolve(*me_, "fast"), Code::kInvalidArgument);
  ASSERT_OK(types_.Start());
  EXPECT_OK(types_.Resolve(*me_, "fast"));
}

TEST_F(TypeStoreTest, DefaultsAreKeptAndOfProjects) {
  const std::string type = MakeType("fast");
  EXPECT_ERROR(types_.GetDefault(kMyProject), Code::kNotFound);
  ASSERT_OK(types_.SetDefault(kMyProject, "fast"));
  EXPECT_EQ(types_.Resolve(*me_, "")->id, type);
  EXPECT_EQ(types_.Resolve(*you_, "")->name, kDefaultTypeName);
  EXPECT_ERROR(types_.Delete(type), Code::kInvalidArgument);
  ASSERT_OK(types_.ForgetDefault(kMyProject));
  EXPECT_OK(types_.Delete(type));
  EXPECT_ERROR(types_.Delete(types_.GetByName(kDefaultTypeName)->id), Code::kInvalidArgument);
  EXPECT_ERROR(types_.SetDefault(kMyProject, "nosuch"), Code::kNotFound);
  EXPECT_ERROR(types_.SetDefault("../x", kDefaultTypeName), Code::kInvalidArgument);
}

TEST_F(TypeStoreTest, TypesAndQosSpecsNameEachOtherAlways) {
  const std::string a = MakeType("a");
  const std::string b = MakeType("b");
  const std::string qos = MakeQos("gold", {});
  ASSERT_OK(types_.Associate(qos, a));
  ASSERT_OK(types_.Associate(qos, a));
  ASSERT_OK(types_.Associate(qos, b));
  EXPECT_THAT(types_.GetQos(qos)->type_ids, testing::UnorderedElementsAre(a, b));
  ASSERT_OK(types_.Delete(a));
  EXPECT_THAT(types_.GetQos(qos)->type_ids, ElementsAre(b));
  EXPECT_ERROR(types_.DeleteQos(qos, false), Code::kInvalidArgument);
  ASSERT_OK(types_.DeleteQos(qos, true));
  EXPECT_EQ(types_.Get(b)->qos_specs_id, "");
  EXPECT_ERROR(types_.GetQos(qos), Code::kNotFound);
  EXPECT_ERROR(types_.Associate(qos, b), Code::kNotFound);
  MakeQos("gold", {});  // the name is free again
}

TEST_F(TypeStoreTest, QosSpecsMustMeanSomethingForEverySize) {
  QosSpec spec;
  spec.name = "gold";
  spec.specs = {{"total_iops_sec", "many"}};
  EXPECT_ERROR(types_.CreateQos(spec), Code::kInvalidArgument);
  spec.specs = {{"total_iops_sec", "5"}, {"read_iops_sec", "5"}};
  EXPECT_ERROR(types_.CreateQos(spec), Code::kInvalidArgument);
  // Fits one GB, and is beyond all bounds for the largest volume.
  spec.specs = {{"total_iops_sec_per_gb", std::to_string(uint64_t{1} << 50)}};
  EXPECT_ERROR(types_.CreateQos(spec), Code::kInvalidArgument);
  spec.specs = {{"somebody:elses", "key"}, {"total_iops_sec", "5"}};
  EXPECT_OK(types_.CreateQos(spec));
}

// Creations of volumes race with the removal of their type, as threads do.
TEST_F(TypeStoreTest, NoVolumeEverNamesATypeThatIsGone) {
  for (int round = 0; round < 20; ++round) {
    const std::string type = MakeType("t" + std::to_string(round));
    std::atomic<int> made = 0;
    const auto create = [&] {
      const Result<void> done =
          api_.catalog.Transact([&](Transaction& transaction) -> Result<void> {
            RETURN_IF_ERROR(types_.Use(transaction, type));
            VolumeRecord volume;
            volume.id = base::NewUuid();
            volume.project_id = base::NewUuidHex();
            volume.size_gb = 1;
            volume.type_id = type;
            return transaction.Put(volume);
          });
      if (done.has_value()) ++made;
    };
    std::thread one(create);
    std::thread two(create);
    const Result<void> removed = types_.Delete(type);
    one.join();
    two.join();
    EXPECT_EQ(removed.has_value(), made == 0) << "made " << made;
    EXPECT_EQ(types_.Get(type).has_value(), made > 0);
  }
}

}  // namespace
}  // namespace blockd::types
