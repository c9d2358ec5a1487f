// A text conversation by the unmodified `@elevenlabs/client`, the way a browser page holds one:
//
//   node relay.mjs --signed-url URL [--say TEXT] [--hear TEXT] [--user-id ID] [--variable name=value]…
//     [--timeout-seconds 15]
//
// Prints one JSON object per line: {"event":"connected","conversation_id"}, {"event":"message","source","text"},
// {"event":"disconnected","reason","close_code"}, {"event":"error","message"}. Exit status: 0 after one text
// was sent and a message of the agent with the text of --hear (any, without it) arrived behind it, 1 for anything
// else, 2 for wrong usage. A greeting may arrive behind our text: who has an agent that greets says --hear.
import { parseArgs } from 'node:util';
import WebSocket from 'ws';

// Node has had a WebSocket of its own since 22; on 20 the `ws` package stands in.
globalThis.WebSocket ??= WebSocket;

const tell = (event, rest = {}) => process.stdout.write(`${JSON.stringify({ event, ...rest })}\n`);

let given;
try {
  ({ values: given } = parseArgs({
    options: {
      'signed-url': { type: 'string' },
      say: { type: 'string', default: 'Hello from the test.' },
      hear: { type: 'string', default: '' },
      'user-id': { type: 'string' },
      variable: { type: 'string', multiple: true, default: [] },
      'timeout-seconds': { type: 'string', default: '15' },
    },
  }));
  if (!given['signed-url']) throw new Error('--signed-url is needed');
} catch (error) {
  process.stderr.write(`${error.message}\n`);
  process.exit(2);
}

const limit = setTimeout(() => finish(1, 'no answer in time'), Number(given['timeout-seconds']) * 1000);
let conversation;
let said = false;
let finished = false;

const { Conversation } = await import('@elevenlabs/client');
try {
  conversation = await Conversation.startSession({
    signedUrl: given['signed-url'],
    textOnly: true,
    ...(given['user-id'] ? { userId: given['user-id'] } : {}),
    dynamicVariables: Object.fromEntries(given.variable.map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)])),
    onConnect: ({ conversationId }) => tell('connected', { conversation_id: conversationId }),
    onMessage: ({ message, source }) => {
      tell('message', { source, text: message });
      if (source === 'ai' && said && message.includes(given.hear)) finish(0);
    },
    onError: (message) => tell('error', { message: String(message) }),
    onDisconnect: (details) => {
      tell('disconnected', { reason: details.reason, close_code: details.closeCode ?? null });
      if (!finished) finish(1, 'disconnected before an answer');
    },
  });
  said = true;
  conversation.sendUserMessage(given.say);
  tell('said', { text: given.say });
} catch (error) {
  finish(1, `${error?.name ?? 'Error'}: ${error?.message ?? error} ${error?.closeCode ?? ''}`.trim());
}

async function finish(status, message) {
  if (finished) return;
  finished = true;
  clearTimeout(limit);
  if (message) tell('error', { message });
  // A hang-up that gets no answer must not turn a finished talk into a hanging one.
  setTimeout(() => process.exit(status), 2_000).unref();
  try {
    await conversation?.endSession();
  } finally {
    process.exit(status);
  }
}
