#pragma once

#include "base/http/message.h"
#include "base/result.h"

namespace controlplane {

// What a service of the cloud answered with a status of 400 or more, as an Error: its own sentence
// (Keystone's, Cinder's and Glance's shapes are read), the status and the request id.
base::Error ServiceError(const base::http::Response& response);

// Its parts.
std::string ServiceSentence(const base::http::Response& response);
base::Code CodeOfStatus(int status);

}  // namespace controlplane
