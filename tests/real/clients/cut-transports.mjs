// The two transports that resume an answer exactly, each for one chat. What a cut leaves of an answer is theirs to mend.
import { WorkflowChatTransport } from "@ai-sdk/workflow/client";
import { ChatSseTransport } from "chat-sse-client/ai-sdk";

const transports = {
  // As README has it. Its page keeps the id of the run, by which it reads the answer again after a request that failed.
  workflow(api) {
    let run;
    const transport = new WorkflowChatTransport({
      api,
      maxConsecutiveErrors: 1000,
      onChatSendMessage: (response) => void (run = response.headers.get("X-Workflow-Run-Id")),
      prepareReconnectToStreamRequest: () => ({ api: `${api}/${run}/stream` }),
    });
    return Object.assign(transport, { resumeStreamIsReplay: true });
  },
  own: (api) => new ChatSseTransport({ api, retries: 1000, maxDelay: 50 }),
};

export const transportOf = (name, api) => transports[name](api);
