#include "imaged/errors.h"

#include "base/http/errors.h"
#include "imaged/views.h"

namespace imaged {
namespace {

using base::Code;
using base::Error;
using base::http::Request;
using base::http::Response;

constexpr std::string_view kParagraph = "\n\n";
constexpr std::string_view kOurFault =
    "The server has either erred or is incapable of performing the requested operation. Report "
    "the request id: the server's log says more.";

std::string EscapeHtml(std::string_view text) {
  std::string escaped;
  for (char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#x27;";
        break;
      default:
        escaped.push_back(c);
    }
  }
  return escaped;
}

Response HtmlPage(int status, const std::string& title, std::string_view explanation,
                  std::string_view detail) {
  std::string body = "<html>\n <head>\n  <title>" + title + "</title>\n </head>\n <body>\n  <h1>" +
                     title + "</h1>\n  " + EscapeHtml(explanation) + "<br /><br />\n" +
                     EscapeHtml(detail) + "\n\n\n </body>\n</html>";
  return Response::Text(status, std::move(body), "text/html; charset=UTF-8");
}

// The line break's markup is in Glance's JSON as well; its clients take it out.
Response JsonPage(int status, const std::string& title, std::string_view explanation,
                  std::string_view detail) {
  std::string message(explanation);
  message.append("<br /><br />\n").append(detail).append("\n\n");
  std::string body = "{\"message\": ";
  AppendJsonString(&body, message);
  body += ", \"code\": ";
  AppendJsonString(&body, title);
  body += ", \"title\": ";
  AppendJsonString(&body, base::http::ReasonPhrase(status));
  body += "}";
  return Response::Text(status, std::move(body), "application/json; charset=UTF-8");
}

Response PlainPage(int status, const std::string& title, std::string_view explanation,
                   std::string_view detail) {
  std::string body = title + "\n\n";
  body.append(explanation).append("\n\n ").append(detail).append("  ");
  return Response::Text(status, std::move(body), "text/plain; charset=UTF-8");
}

bool Contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

}  // namespace

Error DetailedError(Code code, std::string_view explanation, std::string_view detail) {
  std::string message(explanation);
  message.append(kParagraph).append(detail);
  return Error(code, std::move(message));
}

Response ErrorPage(const Request& request, int status, std::string_view explanation,
                   std::string_view detail) {
  const std::string title =
      std::to_string(status) + " " + std::string(base::http::ReasonPhrase(status));
  const std::string_view accept = request.headers.Get("Accept");
  // openstacksdk uploads with an empty Accept, and finds the sentence only in HTML.
  const bool uploads_by_sdk = request.headers.Has("Accept") && accept.empty();
  if (uploads_by_sdk || Contains(accept, "text/html") || Contains(accept, "*/*") ||
      Contains(accept, "text/*"))
    return HtmlPage(status, title, explanation, detail);
  if (Contains(accept, "application/json") || Contains(accept, "application/*"))
    return JsonPage(status, title, explanation, detail);
  return PlainPage(status, title, explanation, detail);
}

Response RenderError(const Request& request, int status, const Error& error) {
  if (status == 500) return ErrorPage(request, status, kOurFault);
  const std::string_view message = error.message();
  const size_t paragraph = message.find(kParagraph);
  if (paragraph == std::string_view::npos) return ErrorPage(request, status, message);
  return ErrorPage(request, status, message.substr(0, paragraph),
                   message.substr(paragraph + kParagraph.size()));
}

}  // namespace imaged
