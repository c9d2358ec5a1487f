// Proof that the counterparts are as strict as the stories that lean on them assume. Nothing of
// Valetkey runs here; the stories with it are in tests/it.
import { after, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { createServer } from 'node:http';
import { fileURLToPath } from 'node:url';
import { WebSocketServer } from 'ws';

const CALLBACK = 'http://127.0.0.1:9/callback';
const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const children = [];
after(() => children.forEach((child) => child.kill('SIGTERM')));

/** Starts a manner and resolves with what it announced. */
async function start(file, ...rest) {
  const child = spawn(process.execPath, [here(file), '--with-parent', '--redirect-uri', CALLBACK, ...rest], { stdio: ['pipe', 'pipe', 'pipe'] });
  children.push(child);
  let heard = '';
  child.stderr.on('data', (part) => { heard += part; });
  const lines = createInterface({ input: child.stdout });
  return new Promise((resolve, reject) => {
    lines.once('line', (line) => resolve(JSON.parse(line)));
    child.once('exit', (code) => reject(new Error(`${file} ended with ${code}: ${heard}`)));
  });
}

/** Follows redirects with cookies until the callback is reached; its query is the answer. */
async function consent(authorizeUrl, parameters) {
  const cookies = new Map();
  let url = new URL(authorizeUrl);
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  for (let hop = 0; hop < 10; hop += 1) {
    const answer = await fetch(url, { redirect: 'manual', headers: { cookie: [...cookies].map((pair) => pair.join('=')).join('; ') } });
    await answer.arrayBuffer();
    for (const line of answer.headers.getSetCookie()) {
      const [name, ...value] = line.split(';')[0].split('=');
      cookies.set(name, value.join('='));
    }
    const next = answer.headers.get('location');
    assert.ok(next, `a redirect, not ${answer.status}`);
    url = new URL(next, url);
    if (url.href.startsWith(CALLBACK)) return Object.fromEntries(url.searchParams);
  }
  throw new Error('too many redirects');
}

async function form(url, fields, headers = {}) {
  const answer = await fetch(url, { method: 'POST', body: new URLSearchParams(fields), headers });
  return { status: answer.status, body: await answer.json() };
}

const basic = (s) => ({ authorization: `Basic ${Buffer.from(`${s.client_id}:${s.client_secret}`).toString('base64')}` });
const secret = (s) => ({ client_id: s.client_id, client_secret: s.client_secret });
const exchange = (s, code, more = {}) => form(s.token_url, { grant_type: 'authorization_code', code, redirect_uri: CALLBACK, ...secret(s), ...more });
const refresh = (s, token) => form(s.token_url, { grant_type: 'refresh_token', refresh_token: token, ...secret(s) });

const CALENDAR = 'https://www.googleapis.com/auth/calendar.events';
const EMAIL = 'https://www.googleapis.com/auth/userinfo.email';
let google;
let slack;
before(async () => {
  [google, slack] = await Promise.all([start('google-manner.mjs'), start('slack-manner.mjs')]);
});

const askGoogle = (more = {}) => consent(google.authorize_url, {
  client_id: google.client_id, redirect_uri: CALLBACK, response_type: 'code', scope: `openid email ${CALENDAR}`,
  access_type: 'offline', prompt: 'select_account consent', state: 's1', nonce: 'n1', ...more,
});
const askSlack = (more = {}) => consent(slack.authorize_url, {
  client_id: slack.client_id, redirect_uri: CALLBACK, user_scope: 'search:read,chat:write', state: 's2', ...more,
});

test('google: a code with PKCE gives a token set with long scopes and a checkable identity', async () => {
  const verifier = randomBytes(32).toString('base64url');
  const challenge = createHash('sha256').update(verifier).digest('base64url');
  const { code, state } = await askGoogle({ code_challenge: challenge, code_challenge_method: 'S256', login_hint: 'ada' });
  assert.equal(state, 's1');
  const { status, body } = await exchange(google, code, { code_verifier: verifier });
  assert.equal(status, 200);
  assert.ok(body.refresh_token);
  assert.deepEqual(new Set(body.scope.split(' ')), new Set(['openid', EMAIL, CALENDAR]));
  const claims = JSON.parse(Buffer.from(body.id_token.split('.')[1], 'base64url'));
  assert.deepEqual([claims.iss, claims.aud, claims.sub, claims.nonce, claims.email], [google.issuer, google.client_id, 'ada', 'n1', 'ada@example.com']);
  const keys = await (await fetch(google.jwks_url)).json();
  assert.ok(keys.keys.length > 0);
  const who = await (await fetch(google.userinfo_url, { headers: { authorization: `Bearer ${body.access_token}` } })).json();
  assert.equal(who.sub, 'ada');
});

test('google: a wrong verifier, a used code and a wrong secret are refused', async () => {
  const verifier = randomBytes(32).toString('base64url');
  const challenge = createHash('sha256').update(verifier).digest('base64url');
  const first = await askGoogle({ code_challenge: challenge, code_challenge_method: 'S256' });
  const wrong = await exchange(google, first.code, { code_verifier: randomBytes(32).toString('base64url') });
  assert.deepEqual([wrong.status, wrong.body.error], [400, 'invalid_grant']);
  const second = await askGoogle();
  assert.equal((await exchange(google, second.code)).status, 200);
  assert.equal((await exchange(google, second.code)).body.error, 'invalid_grant');
  const third = await askGoogle();
  const bad = await exchange(google, third.code, { client_secret: 'wrong' });
  assert.deepEqual([bad.status, bad.body.error], [401, 'invalid_client']);
});

test('google: without access_type=offline there is no refresh token', async () => {
  const { code } = await askGoogle({ access_type: 'online' });
  assert.equal((await exchange(google, code)).body.refresh_token, undefined);
});

test('google: a refresh does not rotate and the token works again', async () => {
  const { code } = await askGoogle();
  const { body } = await exchange(google, code);
  const one = await refresh(google, body.refresh_token);
  const two = await refresh(google, body.refresh_token);
  assert.deepEqual([one.status, two.status], [200, 200]);
  assert.equal(one.body.refresh_token, undefined);
  assert.notEqual(one.body.access_token, two.body.access_token);
});

test('google: revoking the access token ends the refresh token too, and a dead token is 400', async () => {
  const { code } = await askGoogle();
  const { body } = await exchange(google, code);
  assert.equal((await form(google.revoke_url, { token: body.access_token })).status, 200);
  const dead = await refresh(google, body.refresh_token);
  assert.deepEqual([dead.status, dead.body.error, dead.body.error_description], [400, 'invalid_grant', 'Token has been expired or revoked.']);
  const again = await form(google.revoke_url, { token: body.access_token });
  assert.deepEqual([again.status, again.body.error], [400, 'invalid_token']);
});

test('google: a person who refuses comes back with access_denied', async () => {
  const back = await askGoogle({ login_hint: 'deny-me' });
  assert.deepEqual([back.error, back.state, back.code], ['access_denied', 's1', undefined]);
});

test('google: an access token is refused once its life is over, without leeway', async () => {
  const brief = await start('google-manner.mjs', '--access-token-seconds', '1');
  const { code } = await consent(brief.authorize_url, { client_id: brief.client_id, redirect_uri: CALLBACK, response_type: 'code', scope: 'openid' });
  const { body } = await exchange(brief, code);
  const ends = Date.now() + 5_000;
  let status;
  do ({ status } = await fetch(brief.userinfo_url, { headers: { authorization: `Bearer ${body.access_token}` } })); while (status === 200 && Date.now() < ends);
  assert.equal(status, 401);
});

test('slack: a user-only install has the token under authed_user and commas between scopes', async () => {
  const { code, state, iss } = await askSlack();
  assert.deepEqual([state, iss], ['s2', undefined], 'Slack does not name itself');
  const { status, body } = await exchange(slack, code);
  assert.deepEqual([status, body.ok, body.access_token], [200, true, undefined]);
  assert.deepEqual([body.authed_user.token_type, body.authed_user.scope, body.authed_user.expires_in], ['user', 'search:read,chat:write', 43_200]);
  assert.ok(body.authed_user.refresh_token);
  const who = await form(`${slack.api_base_url}auth.test`, {}, { authorization: `Bearer ${body.authed_user.access_token}` });
  assert.deepEqual([who.body.ok, who.body.team_id, who.body.user_id], [true, 'T0TEST', 'U0PERSON']);
});

test('slack: client credentials travel by Basic as well', async () => {
  const { code } = await askSlack();
  const { body } = await form(slack.token_url, { code, redirect_uri: CALLBACK }, basic(slack));
  assert.equal(body.ok, true);
});

test('slack: bot and user get a pair each, and reuse of one leaves the other alone', async () => {
  const { code } = await askSlack({ scope: 'chat:write,channels:read' });
  const { body } = await exchange(slack, code);
  assert.deepEqual([body.token_type, body.scope, body.bot_user_id], ['bot', 'chat:write,channels:read', 'U0BOT']);
  const bot = (await refresh(slack, body.refresh_token)).body;
  assert.deepEqual([bot.ok, bot.token_type, bot.scope], [true, 'bot', 'chat:write,channels:read']);
  assert.deepEqual((await refresh(slack, body.refresh_token)).body, { ok: false, error: 'invalid_refresh_token' });
  assert.equal((await refresh(slack, bot.refresh_token)).body.ok, false, 'reuse ended the bot grant');
  const user = (await refresh(slack, body.authed_user.refresh_token)).body;
  assert.deepEqual([user.ok, user.token_type], [true, 'user']);
});

test('slack: a bot-only install gives no token to the person', async () => {
  const { code } = await askSlack({ scope: 'chat:write', user_scope: '' });
  const { body } = await exchange(slack, code);
  assert.deepEqual([body.ok, body.token_type, Object.keys(body.authed_user)], [true, 'bot', ['id']]);
});

test('slack: a refresh rotates, and a spent refresh token is refused and ends the grant', async () => {
  const { code } = await askSlack();
  const first = (await exchange(slack, code)).body.authed_user;
  const second = (await refresh(slack, first.refresh_token)).body;
  assert.equal(second.ok, true);
  assert.notEqual(second.refresh_token, first.refresh_token);
  assert.notEqual(second.access_token, first.access_token);
  const reused = await refresh(slack, first.refresh_token);
  assert.deepEqual([reused.status, reused.body], [200, { ok: false, error: 'invalid_refresh_token' }]);
  assert.equal((await refresh(slack, second.refresh_token)).body.error, 'invalid_refresh_token');
});

test('slack: errors are 200 with Slack\'s own words', async () => {
  const { code } = await askSlack();
  assert.equal((await exchange(slack, code, { client_secret: 'wrong' })).body.error, 'bad_client_secret');
  assert.equal((await exchange(slack, code, { client_id: 'wrong' })).body.error, 'invalid_client_id');
  assert.equal((await exchange(slack, code, { code_verifier: 'x'.repeat(43) })).body.error, 'pkce_not_allowed');
  assert.equal((await exchange(slack, 'made-up')).body.error, 'invalid_code');
  assert.equal((await exchange(slack, code, { grant_type: 'password' })).body.error, 'invalid_grant_type');
});

test('slack: auth.revoke ends that one token, and apps.uninstall all of them', async () => {
  const { code } = await askSlack({ scope: 'chat:write' });
  const { body } = await exchange(slack, code);
  const held = (token) => ({ authorization: `Bearer ${token}` });
  const user = body.authed_user;
  assert.deepEqual((await form(slack.revoke_url, {}, held(user.access_token))).body, { ok: true, revoked: true });
  assert.equal((await form(slack.revoke_url, {}, held(user.access_token))).body.error, 'invalid_auth');
  const next = (await refresh(slack, user.refresh_token)).body;
  assert.equal(next.ok, true, 'the refresh token lived on');
  assert.equal((await form(`${slack.api_base_url}apps.uninstall`, secret(slack), held(body.access_token))).body.ok, true);
  assert.equal((await refresh(slack, next.refresh_token)).body.ok, false);
  assert.equal((await refresh(slack, body.refresh_token)).body.ok, false);
});

/** What stands in a signed token. */
const claims = (token) => JSON.parse(Buffer.from(token.split('.')[1], 'base64url').toString('utf8'));
const byBasic = (s, code) => form(s.token_url, { grant_type: 'authorization_code', code, redirect_uri: CALLBACK }, basic(s));

for (const algorithm of ['RS256', 'ES256', 'EdDSA']) {
  test(`telegram: an id_token by ${algorithm} with a number beside the subject, once, and nothing to refresh with`, async () => {
    const s = await start('telegram-manner.mjs', '--client-id', '123456', '--algorithm', algorithm);
    const { code } = await consent(s.authorize_url, { client_id: '123456', redirect_uri: CALLBACK, response_type: 'code', scope: 'openid profile telegram:bot_access', nonce: 'n-1' });
    const by_post = await exchange(s, code);
    assert.equal(by_post.body.error, 'invalid_client', 'the client authenticates by Basic');
    const first = await byBasic(s, code);
    assert.equal(first.status, 200, JSON.stringify(first.body));
    assert.equal(first.body.refresh_token, undefined);
    const { sub, id, aud, nonce } = claims(first.body.id_token);
    assert.deepEqual({ id, aud, nonce }, { id: 987654321, aud: '123456', nonce: 'n-1' });
    assert.notEqual(sub, String(id));
    assert.equal(JSON.parse(Buffer.from(first.body.id_token.split('.')[0], 'base64url')).alg, algorithm);
    assert.equal((await byBasic(s, code)).body.error, 'invalid_grant', 'a code works once');
  });
}

test('telegram: the nonce can stay away', async () => {
  const s = await start('telegram-manner.mjs', '--without-nonce');
  const { code } = await consent(s.authorize_url, { client_id: s.client_id, redirect_uri: CALLBACK, response_type: 'code', scope: 'openid profile', nonce: 'n-1' });
  assert.equal(claims((await byBasic(s, code)).body.id_token).nonce, undefined);
});

/** Presses the first button of the emulator's page; the query of the callback. */
async function choose(authorizeUrl, parameters) {
  const url = new URL(authorizeUrl);
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  const page = await (await fetch(url)).text();
  const [, inside] = page.match(/<form[^>]*>(.*?)<\/form>/s);
  const fields = [...inside.matchAll(/name="([^"]*)" value="([^"]*)"/g)].map(([, name, value]) => [name, value.replaceAll('&amp;', '&')]);
  const [, action] = page.match(/<form[^>]* action="([^"]*)"/);
  const answer = await fetch(new URL(action, url), { method: 'POST', body: new URLSearchParams(fields), redirect: 'manual' });
  return Object.fromEntries(new URL(answer.headers.get('location')).searchParams);
}

test('emulate: Google checks PKCE and lists what it has issued', async () => {
  const s = await start('emulate.mjs', '--service', 'google');
  const verifier = randomBytes(32).toString('base64url');
  const code_challenge = createHash('sha256').update(verifier).digest('base64url');
  const { code } = await choose(s.authorize_url, { client_id: s.client_id, redirect_uri: CALLBACK, scope: `openid ${CALENDAR}`, state: 'x', code_challenge, code_challenge_method: 'S256' });
  assert.equal((await exchange(s, code, { code_verifier: 'another' })).body.error, 'invalid_grant');
  const { body } = await exchange(s, code, { code_verifier: verifier });
  assert.ok(body.access_token && body.refresh_token && body.id_token, JSON.stringify(body));
  const issued = await (await fetch(new URL('/issued', s.token_url))).json();
  assert.deepEqual(issued, { access_tokens: [body.access_token], refresh_tokens: [body.refresh_token], codes: [code] });
});

test('emulate: Slack gives a bot and a person, without an end', async () => {
  const s = await start('emulate.mjs', '--service', 'slack');
  const { code } = await choose(s.authorize_url, { client_id: s.client_id, redirect_uri: CALLBACK, scope: 'channels:read', user_scope: 'chat:write', state: 'x' });
  const { body } = await exchange(s, code);
  assert.equal(body.ok, true, JSON.stringify(body));
  assert.ok(body.access_token.startsWith('xoxb-') && body.authed_user.access_token.startsWith('xoxp-'));
  assert.equal(body.refresh_token, undefined);
  const issued = await (await fetch(new URL('/issued', s.token_url))).json();
  assert.deepEqual(issued.access_tokens, [body.access_token, body.authed_user.access_token]);
});

/** The least that the client takes for ElevenLabs: metadata first, then an answer to each text. */
async function agent(behaviour) {
  const http = createServer();
  const sockets = new WebSocketServer({ server: http, handleProtocols: (offered) => (offered.has('convai') ? 'convai' : false) });
  const seen = [];
  sockets.on('connection', (socket) => socket.on('message', (data) => {
    const frame = JSON.parse(data);
    seen.push(frame);
    behaviour(socket, frame);
  }));
  await new Promise((resolve) => http.listen(0, '127.0.0.1', resolve));
  http.unref();
  return { url: `ws://127.0.0.1:${http.address().port}/v1/conversations/cnv_1/relay?t=once`, seen, close: () => sockets.clients.forEach((s) => s.terminate()) };
}

function talk(url, ...rest) {
  const child = spawn(process.execPath, [here('relay.mjs'), '--signed-url', url, ...rest], { stdio: ['ignore', 'pipe', 'pipe'] });
  let out = '';
  child.stdout.on('data', (part) => { out += part; });
  return new Promise((resolve) => child.on('close', (code) => resolve({ code, events: out.trim().split('\n').filter(Boolean).map((line) => JSON.parse(line)) })));
}

const METADATA = { type: 'conversation_initiation_metadata', conversation_initiation_metadata_event: { conversation_id: 'conv_1', agent_output_audio_format: 'pcm_16000', user_input_audio_format: 'pcm_16000' } };

test('relay: the unmodified client says a text and hears an answer', async () => {
  const far = await agent((socket, frame) => {
    if (frame.type === 'conversation_initiation_client_data') socket.send(JSON.stringify(METADATA));
    if (frame.type === 'user_message') socket.send(JSON.stringify({ type: 'agent_response', agent_response_event: { agent_response: `heard ${frame.text}`, event_id: 1 } }));
  });
  const { code, events } = await talk(far.url, '--say', 'ping', '--variable', 'topic=invoices', '--user-id', 'u-42');
  far.close();
  assert.equal(code, 0, JSON.stringify(events));
  assert.equal(events.find((e) => e.event === 'connected').conversation_id, 'conv_1');
  assert.equal(events.find((e) => e.event === 'message' && e.source === 'ai').text, 'heard ping');
  assert.deepEqual(far.seen[0].dynamic_variables, { topic: 'invoices' });
  assert.equal(far.seen[0].user_id, 'u-42');
});

test('relay: a greeting that arrives behind the text is not the answer that was waited for', async () => {
  const says = (text, id) => JSON.stringify({ type: 'agent_response', agent_response_event: { agent_response: text, event_id: id } });
  const far = await agent((socket, frame) => {
    if (frame.type === 'conversation_initiation_client_data') socket.send(JSON.stringify(METADATA));
    if (frame.type === 'user_message') for (const [id, text] of ['Hello!', 'pong'].entries()) socket.send(says(text, id + 1));
  });
  const { code, events } = await talk(far.url, '--say', 'ping', '--hear', 'pong');
  far.close();
  assert.equal(code, 0, JSON.stringify(events));
  assert.deepEqual(events.filter((e) => e.event === 'message' && e.source === 'ai').map((e) => e.text), ['Hello!', 'pong']);
});

test('relay: a socket that closes before an answer is a failure, not a success', async () => {
  const far = await agent((socket, frame) => {
    if (frame.type === 'conversation_initiation_client_data') socket.send(JSON.stringify(METADATA));
    if (frame.type === 'user_message') socket.close(1008, 'refused');
  });
  const { code, events } = await talk(far.url);
  far.close();
  assert.equal(code, 1);
  assert.equal(events.find((e) => e.event === 'disconnected').close_code, 1008);
});
