// Google or Slack as the npm package `emulate` plays them: the shapes of their pages and APIs (Gmail, Calendar,
// `chat.postMessage`), with nobody's mistakes of ours in them. Happy path only: it lets any token in and nothing ends. In
// front of it stands what writes down codes and tokens, and nothing else. README.md says how to drive it.
import { createServer } from 'node:http';
import { once } from 'node:events';
import { createEmulator } from 'emulate';
import { announce, issuedList, listen, options, sendJson } from './manners.mjs';

const given = options({ service: { type: 'string', default: 'google' } });
const EMAIL = 'ada@acme.example';

const SERVICES = {
  google: {
    seed: (client) => ({
      users: [{ email: EMAIL, name: 'Ada' }],
      oauth_clients: [client],
      messages: [{ id: 'msg_1', user_email: EMAIL, from: 'grace@acme.example', to: EMAIL, subject: 'Lunch?', body_text: 'At noon.', label_ids: ['INBOX', 'UNREAD'] }],
    }),
    urls: (origin) => ({
      issuer: origin,
      authorize_url: `${origin}/o/oauth2/v2/auth`,
      token_url: `${origin}/oauth2/token`,
      revoke_url: `${origin}/oauth2/revoke`,
      userinfo_url: `${origin}/oauth2/v2/userinfo`,
      jwks_url: `${origin}/oauth2/v3/certs`,
      api_base_url: origin,
    }),
  },
  slack: {
    seed: (client) => ({
      team: { name: 'Acme', domain: 'acme' },
      users: [{ name: 'ada', real_name: 'Ada', email: EMAIL }],
      channels: [{ name: 'general', topic: 'All of us' }],
      oauth_apps: [{ ...client, scopes: ['chat:write', 'channels:read'], user_scopes: ['chat:write', 'users:read'] }],
    }),
    // Tokens without an end, and no refresh tokens.
    urls: (origin) => ({
      refreshes: false,
      authorize_url: `${origin}/oauth/v2/authorize`,
      token_url: `${origin}/api/oauth.v2.access`,
      revoke_url: `${origin}/api/auth.revoke`,
      userinfo_url: `${origin}/api/auth.test`,
      api_base_url: `${origin}/api/`,
    }),
  },
};
const service = SERVICES[given.service];
if (!service) {
  process.stderr.write(`--service is google or slack, not ${given.service}\n`);
  process.exit(2);
}

const issued = issuedList();
const front = createServer();
await listen(front, Number(given.port));
const origin = `http://127.0.0.1:${front.address().port}`;
const inner = await freePort();
const client = { client_id: given['client-id'], client_secret: given['client-secret'], name: 'Valetkey', redirect_uris: given['redirect-uri'] };
await createEmulator({ service: given.service, port: inner, baseUrl: origin, seed: { [given.service]: service.seed(client) } });

front.on('request', async (request, response) => {
  try {
    if (request.url === '/issued') return sendJson(response, 200, issued);
    const answer = await behind(request);
    const body = Buffer.from(await answer.arrayBuffer());
    writeDown(answer, body);
    const kept = [...answer.headers].filter(([name]) => !['connection', 'content-encoding', 'content-length', 'transfer-encoding'].includes(name));
    response.writeHead(answer.status, Object.fromEntries(kept)).end(body);
  } catch (error) {
    process.stderr.write(`${error.stack}\n`);
    if (!response.headersSent) sendJson(response, 502, { error: 'nothing_behind' });
  }
});
announce({ manner: given.service, ...service.urls(origin) }, given);

/** The same request, to the emulator. */
async function behind(request) {
  const { host, connection, 'content-length': length, 'transfer-encoding': pieces, expect, ...headers } = request.headers;
  const bodiless = ['GET', 'HEAD'].includes(request.method);
  const body = bodiless ? {} : { body: request, duplex: 'half' };
  return fetch(`http://127.0.0.1:${inner}${request.url}`, { method: request.method, headers, redirect: 'manual', ...body });
}

/** Codes go by in redirects, tokens in answers. */
function writeDown(answer, body) {
  const location = answer.headers.get('location');
  const code = location && new URL(location, origin).searchParams.get('code');
  if (code) issued.codes.push(code);
  if (!(answer.headers.get('content-type') ?? '').startsWith('application/json')) return;
  const told = JSON.parse(body.toString('utf8') || '{}');
  for (const pair of [told, told?.authed_user ?? {}]) {
    if (pair?.access_token) issued.access_tokens.push(pair.access_token);
    if (pair?.refresh_token) issued.refresh_tokens.push(pair.refresh_token);
  }
}

async function freePort() {
  const asked = createServer();
  await listen(asked, 0);
  const { port } = asked.address();
  asked.close();
  await once(asked, 'close');
  return port;
}
