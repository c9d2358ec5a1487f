// The vendors' own clients, unmodified: with a token that the house has handed out, or with the house's broker in the
// vendor's place, for which a conversation's ticket is the token. One JSON object on stdin says what with; one line of JSON on
// stdout says what came of it. Status 1 when the client refused. README.md says what goes in.
import { OAuth2Client } from 'google-auth-library';
import { WebClient } from '@slack/web-api';
import { Api } from 'grammy';

const CLIENTS = {
  /** `google-auth-library` reads mail. */
  async google({ api, token, headers }) {
    const client = new OAuth2Client();
    client.setCredentials({ access_token: token });
    const list = await client.request({ url: `${api}gmail/v1/users/me/messages`, headers });
    const [{ id }] = list.data.messages;
    const message = await client.request({ url: `${api}gmail/v1/users/me/messages/${id}`, headers });
    const subject = message.data.payload.headers.find(({ name }) => name === 'Subject').value;
    return { messages: list.data.messages.length, subject };
  },

  /** `@slack/web-api` asks who it is, and writes where it is told a channel. */
  async slack({ api, token, headers, channel, text }) {
    const client = new WebClient(token, { slackApiUrl: api, headers, retryConfig: { retries: 0 } });
    const { user_id: user } = await client.auth.test();
    if (!channel) return { user };
    const sent = await client.chat.postMessage({ channel, text });
    return { user, text: sent.message.text };
  },

  /** `grammy` writes to a chat, and tries to read what others have written. The token has no place in the broker's URLs. */
  async telegram({ api, token, headers, chat_id, text }) {
    const telegram = new Api(token, {
      buildUrl: (_root, _token, method) => `${api}${method}`,
      fetch: (url, { method, body }) => fetch(url, { method, body, headers: { ...headers, authorization: `Bearer ${token}`, 'content-type': 'application/json' } }),
    });
    const me = await telegram.getMe();
    const sent = await telegram.sendMessage(chat_id, text);
    const refused = await telegram.getUpdates().then(() => 'nothing', (error) => error.error_code ?? error.error?.message ?? 'something');
    return { bot: me.username, chat: sent.chat.id, text: sent.text, refused };
  },
};

const parts = [];
for await (const part of process.stdin) parts.push(part);
const { client, ...given } = JSON.parse(Buffer.concat(parts).toString('utf8'));
try {
  process.stdout.write(`${JSON.stringify(await CLIENTS[client](given))}\n`);
} catch (error) {
  process.stderr.write(`${error.stack}\n${JSON.stringify(error.data ?? error.response?.data ?? null)}\n`);
  process.exitCode = 1;
}
