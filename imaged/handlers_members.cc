#include <algorithm>

#include "imaged/attributes.h"
#include "imaged/handlers.h"
#include "imaged/policy.h"
#include "imaged/views.h"

namespace imaged {
namespace {

using base::Code;
using base::Error;
using base::Result;
using base::auth::Caller;
using base::http::Request;
using base::http::Response;

Error NoSuchMember(std::string_view member_id, const Image& image) {
  return Error(Code::kNotFound, std::string(member_id) +
                                    " not found in the member list of the image " + image.id + ".");
}

Result<void> CheckShared(const Image& image) {
  if (image.visibility == Visibility::kShared) return {};
  return Error(Code::kPermissionDenied, "Only shared images have members.");
}

// Owner and admin see all members, a member only itself.
bool SeesMember(const Caller& caller, const Image& image, const Member& member) {
  return caller.IsAdmin() || image.owner == caller.project_id ||
         member.project_id == caller.project_id;
}

// The image's owner changes who is a member.
Result<void> CheckManage(const Caller& caller, const Image& image, std::string_view verb) {
  RETURN_IF_ERROR(CheckSee(caller, image));
  RETURN_IF_ERROR(CheckShared(image));
  if (caller.IsAdmin() || (!caller.project_id.empty() && image.owner == caller.project_id))
    return {};
  return Error(Code::kPermissionDenied,
               "Not allowed to " + std::string(verb) + " members for image " + image.id + ".");
}

Result<Response> List(const Context& context, const Request& request) {
  ASSIGN_OR_RETURN(const Image image, context.catalog.Get(request.Param("image_id")));
  RETURN_IF_ERROR(CheckSee(*request.caller, image));
  RETURN_IF_ERROR(CheckShared(image));
  std::string text = "{\"members\": [";
  for (const Member& member : image.members) {
    if (!SeesMember(*request.caller, image, member)) continue;
    if (text.back() != '[') text += ", ";
    AppendMember(&text, image, member);
  }
  text += "], \"schema\": \"/v2/schemas/members\"}";
  return JsonText(200, std::move(text));
}

Result<Response> Show(const Context& context, const Request& request) {
  const std::string& member_id = request.Param("member_id");
  ASSIGN_OR_RETURN(const Image image, context.catalog.Get(request.Param("image_id")));
  RETURN_IF_ERROR(CheckSee(*request.caller, image));
  RETURN_IF_ERROR(CheckShared(image));
  const Member* member = image.FindMember(member_id);
  if (member == nullptr || !SeesMember(*request.caller, image, *member))
    return NoSuchMember(member_id, image);
  return MemberResponse(image, *member);
}

Result<std::string> MemberFromBody(const Request& request) {
  ASSIGN_OR_RETURN(const base::JsonObject body, ParseObject(request));
  const base::Json* member = body.if_contains("member");
  if (member == nullptr || !member->is_string())
    return Error(Code::kInvalidArgument, "Member to be added not specified");
  std::string id(base::View(member->get_string()));
  if (id.empty()) return Error(Code::kInvalidArgument, "Member can't be empty");
  RETURN_IF_ERROR(CheckLength("member", id));
  return id;
}

Result<Response> Create(const Context& context, const Request& request) {
  RETURN_IF_ERROR(CheckMayWrite(*request.caller));
  ASSIGN_OR_RETURN(const std::string member_id, MemberFromBody(request));
  const int64_t now_us = context.catalog.NowUs();
  auto change = [&](Image& image) -> Result<void> {
    RETURN_IF_ERROR(CheckManage(*request.caller, image, "create"));
    if (image.FindMember(member_id) != nullptr)
      return Error(Code::kAlreadyExists,
                   "Member " + member_id + " is duplicated for image " + image.id);
    if (image.members.size() >= kMaxMembers)
      return Error(Code::kTooLarge,
                   "The limit has been exceeded on the number of allowed image members for this "
                   "image. Attempted: " +
                       std::to_string(image.members.size() + 1) +
                       ", Maximum: " + std::to_string(kMaxMembers));
    const auto place =
        std::lower_bound(image.members.begin(), image.members.end(), member_id,
                         [](const Member& a, const std::string& id) { return a.project_id < id; });
    image.members.insert(place, Member{member_id, MemberStatus::kPending, now_us, now_us});
    return {};
  };
  ASSIGN_OR_RETURN(const Image image, context.catalog.Update(request.Param("image_id"), change));
  return MemberResponse(image, *image.FindMember(member_id));
}

Result<MemberStatus> StatusFromBody(const Request& request) {
  ASSIGN_OR_RETURN(const base::JsonObject body, ParseObject(request));
  std::optional<MemberStatus> status;
  if (const base::Json* value = body.if_contains("status"); value != nullptr) {
    if (value->is_string()) status = ParseMemberStatus(base::View(value->get_string()));
  } else {
    return Error(Code::kInvalidArgument, "Status not specified");
  }
  if (status.has_value()) return *status;
  return Error(Code::kInvalidArgument,
               "Incorrect request: Status must be \"pending\", \"accepted\" or \"rejected\".");
}

// A member answers for itself: the owner may offer an image, not put it on another project's list.
Result<Response> Update(const Context& context, const Request& request) {
  RETURN_IF_ERROR(CheckMayWrite(*request.caller));
  ASSIGN_OR_RETURN(const MemberStatus status, StatusFromBody(request));
  const std::string& member_id = request.Param("member_id");
  const int64_t now_us = context.catalog.NowUs();
  auto change = [&](Image& image) -> Result<void> {
    RETURN_IF_ERROR(CheckSee(*request.caller, image));
    RETURN_IF_ERROR(CheckShared(image));
    Member* member = image.FindMember(member_id);
    if (member == nullptr || !SeesMember(*request.caller, image, *member))
      return NoSuchMember(member_id, image);
    if (!request.caller->IsAdmin() && member_id != request.caller->project_id)
      return Error(Code::kPermissionDenied,
                   "Not allowed to update members for image " + image.id + ".");
    member->status = status;
    member->updated_at_us = now_us;
    return {};
  };
  ASSIGN_OR_RETURN(const Image image, context.catalog.Update(request.Param("image_id"), change));
  return MemberResponse(image, *image.FindMember(member_id));
}

Result<Response> Delete(const Context& context, const Request& request) {
  RETURN_IF_ERROR(CheckMayWrite(*request.caller));
  const std::string& member_id = request.Param("member_id");
  auto change = [&](Image& image) -> Result<void> {
    RETURN_IF_ERROR(CheckManage(*request.caller, image, "delete"));
    auto is_it = [&](const Member& member) { return member.project_id == member_id; };
    if (std::erase_if(image.members, is_it) > 0) return {};
    return NoSuchMember(member_id, image);
  };
  RETURN_IF_ERROR(context.catalog.Update(request.Param("image_id"), change));
  return Response::Empty(204);
}

}  // namespace

void AppendMemberRoutes(const Context& context, Routes* routes) {
  const std::string members = "/v2/images/{image_id}/members";
  const std::string member = members + "/{member_id}";
  routes->push_back(MakeRoute(context, "GET", members, List));
  routes->push_back(MakeRoute(context, "POST", members, Create));
  routes->push_back(MakeRoute(context, "GET", member, Show));
  routes->push_back(MakeRoute(context, "PUT", member, Update));
  routes->push_back(MakeRoute(context, "DELETE", member, Delete));
}

}  // namespace imaged
