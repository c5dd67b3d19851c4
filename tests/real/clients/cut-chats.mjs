// The AI SDK's own chats, several at once, whose connections break. Prints each as it has ended.
// Arguments: {"transport", "api", "name", "chats", "atOnce", "text", "bodies"}.
import { AbstractChat } from "ai";
import { transportOf } from "./cut-transports.mjs";

const { transport, api, name, chats, atOnce, text, bodies } = JSON.parse(process.argv[2]);
console.error = () => {}; // it tells of each cut

class State {
  status = "ready";
  messages = [];
  pushMessage = (message) => void (this.messages = [...this.messages, message]);
  popMessage = () => void (this.messages = this.messages.slice(0, -1));
  replaceMessage = (index, message) => void (this.messages = this.messages.with(index, structuredClone(message)));
  snapshot = structuredClone;
}
class Chat extends AbstractChat {}

async function answer(number) {
  const [id, state] = [`${name} ${number}`, new State()];
  const chat = new Chat({ id, state, transport: transportOf(transport, api) });
  await chat.sendMessage({ text }, { body: bodies[number % bodies.length] });
  let resumed = 0;
  for (; chat.status === "error" && resumed < 100; resumed++) await chat.resumeStream();
  const { status, error } = chat;
  console.log(JSON.stringify({ number, status, error: error?.message, messages: state.messages, resumed }));
}

let next = 0;
const work = async () => { while (next < chats) await answer(next++); };
await Promise.all(Array.from({ length: atOnce }, work));
process.exit(); // its connections are kept open
