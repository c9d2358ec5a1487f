"use strict";
// The browser's side of a conversation, as the ElevenLabs SDK has it: one WebSocket at a single-use address.
const $ = (id) => document.getElementById(id);
const chat = $("chat"), raw = $("raw"), say = $("say");
let socket = null;

function line(kind, text) {
  const item = document.createElement("li");
  item.className = kind;
  item.textContent = text;
  chat.append(item);
  chat.scrollTop = chat.scrollHeight;
}

function enable(talking) {
  $("start").disabled = talking;
  for (const control of document.querySelectorAll("#end, #say input, #say button, [data-say]")) control.disabled = !talking;
}

async function refresh() {
  const answer = await fetch("/panels");
  if (answer.ok) $("panels").innerHTML = await answer.text();
}

function hear(event) {
  raw.textContent += event.data + "\n";
  const frame = JSON.parse(event.data);
  if (frame.type === "ping") socket.send(JSON.stringify({ type: "pong", event_id: frame.ping_event.event_id }));
  if (frame.type === "agent_tool_request") line("note", "uses " + frame.agent_tool_request.tool_name);
  if (frame.type === "agent_response") {
    line("", frame.agent_response_event.agent_response);
    refresh();
  }
}

async function start() {
  $("start").disabled = true;
  const answer = await fetch("/conversation", { method: "POST" });
  const started = await answer.json();
  if (!answer.ok) {
    line("note", started.error);
    enable(false);
    return;
  }
  chat.replaceChildren();
  raw.textContent = started.signed_url + "\n";
  socket = new WebSocket(started.signed_url, "convai");
  socket.onopen = () => {
    socket.send(JSON.stringify({ type: "conversation_initiation_client_data" }));
    enable(true);
  };
  socket.onmessage = hear;
  socket.onclose = (event) => {
    line("note", "The conversation has ended (" + event.code + ").");
    enable(false);
    refresh();
  };
}

function tell(text) {
  if (!text || !socket) return;
  line("me", text);
  socket.send(JSON.stringify({ type: "user_message", text }));
}

$("start").addEventListener("click", start);
$("end").addEventListener("click", async () => {
  await fetch("/conversation/end", { method: "POST" });
  refresh();
});
say.addEventListener("submit", (event) => {
  event.preventDefault();
  tell(say.elements.text.value.trim());
  say.reset();
});
for (const button of document.querySelectorAll("[data-say]")) button.addEventListener("click", () => tell(button.dataset.say));

// The button of the guide (docs/CONNECT.md): connecting without leaving this page.
const post = async (path, body) => {
  const answer = await fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
};
async function connect(provider) {
  // At once: a popup that comes later than the click is blocked.
  const popup = window.open("about:blank", "_blank", "popup,width=480,height=720");
  if (!popup) throw new Error("Your browser has blocked the popup.");
  const vault = new URL(document.body.dataset.vault).origin;
  const ended = new Promise((resolve) => window.addEventListener("message", function hear({ origin, source, data }) {
    if (origin !== vault || source !== popup || data?.source !== "valetkey") return;
    window.removeEventListener("message", hear);
    resolve(data);
  }));
  popup.location = (await post("/popup/connect", { provider })).url;
  const { state, connect_session, completion_code } = await ended;
  if (state === "awaiting_confirmation") await post("/popup/back", { connect_session, completion_code });
  refresh();
}
document.body.classList.add("scripted");
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-connect]");
  if (button) connect(button.dataset.connect).catch((error) => line("note", error.message));
});

// Quiet forms do their work without leaving a conversation.
document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.matches("[data-quiet]")) return;
  event.preventDefault();
  await fetch(form.action, { method: "POST", redirect: "manual" });
  refresh();
});
// What happens elsewhere (a Start in Telegram) shows within a few seconds.
setInterval(() => {
  if (!document.hidden && !$("panels").contains(document.activeElement)) refresh();
}, 3000);
