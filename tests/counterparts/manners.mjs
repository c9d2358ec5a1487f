// What both manners share: a front server that speaks like the real provider, and behind it, in the
// same process, the unmodified oidc-provider, which decides everything that matters (codes, PKCE,
// expiry, rotation, reuse).
import { createServer, request as httpRequest } from 'node:http';
import { randomBytes } from 'node:crypto';
import { parseArgs } from 'node:util';
import { Provider } from 'oidc-provider';

/** Reads the command line; wrong usage ends with status 2. */
export function options(known) {
  try {
    const { values } = parseArgs({
      options: {
        'redirect-uri': { type: 'string', multiple: true, default: [] },
        'client-id': { type: 'string', default: 'valetkey-test' },
        'client-secret': { type: 'string', default: randomBytes(24).toString('base64url') },
        port: { type: 'string', default: '0' },
        'with-parent': { type: 'boolean', default: false },
        ...known,
      },
    });
    if (values['redirect-uri'].length === 0) throw new Error('--redirect-uri is needed at least once');
    return values;
  } catch (error) {
    process.stderr.write(`${error.message}\n`);
    process.exit(2);
  }
}

export function sendJson(response, status, body, headers = {}) {
  response.writeHead(status, { 'content-type': 'application/json; charset=utf-8', 'cache-control': 'no-store', ...headers });
  response.end(JSON.stringify(body));
}

/** The body of a form or JSON request, at most 64 KiB, with client credentials from Basic moved into it. */
export async function readForm(request) {
  const parts = [];
  let size = 0;
  for await (const part of request) {
    size += part.length;
    if (size > 65_536) throw new Error('request body over 64 KiB');
    parts.push(part);
  }
  const text = Buffer.concat(parts).toString('utf8');
  const json = (request.headers['content-type'] ?? '').startsWith('application/json');
  const form = new URLSearchParams(json ? JSON.parse(text || '{}') : text);
  const [scheme, value] = (request.headers.authorization ?? '').split(' ');
  if (scheme?.toLowerCase() === 'basic' && value) {
    const [id, ...secret] = Buffer.from(value, 'base64').toString('utf8').split(':');
    form.set('client_id', decodeURIComponent(id));
    form.set('client_secret', decodeURIComponent(secret.join(':')));
  }
  return form;
}

/** The token in `Authorization: Bearer …`, or an empty text. */
export function bearer(request) {
  const [scheme, value] = (request.headers.authorization ?? '').split(' ');
  return scheme?.toLowerCase() === 'bearer' && value ? value : '';
}

/** Starts front and inner server; `manner(origin)` gives `{ configuration, client?, announce, handle(request, response, url, inside) }`. */
export async function serve(given, manner) {
  const front = createServer();
  await listen(front, Number(given.port));
  const origin = `http://127.0.0.1:${front.address().port}`;
  const { configuration, client, announce: about, handle } = manner(origin);

  const provider = new Provider(origin, {
    ...configuration,
    clockTolerance: 0,
    cookies: { keys: [randomBytes(24).toString('hex')] },
    clients: [{
      client_id: given['client-id'],
      client_secret: given['client-secret'],
      redirect_uris: given['redirect-uri'],
      application_type: 'web',
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      token_endpoint_auth_method: 'client_secret_post',
      ...client,
    }],
    // Without this every second visit of the same browser would reuse the first consent.
    loadExistingGrant: (ctx) => {
      const id = ctx.oidc.result?.consent?.grantId;
      return id ? ctx.oidc.provider.Grant.find(id) : undefined;
    },
    expiresWithSession: () => false,
    pkce: { required: () => false },
    conformIdTokenClaims: false,
    interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
  });
  // Causes go to stderr: a test that fails wants to know what the strict side objected to.
  for (const event of ['authorization.error', 'grant.error', 'userinfo.error', 'server_error']) {
    provider.on(event, (_ctx, error) => process.stderr.write(`${event}: ${error.message} ${error.error_detail ?? ''}\n`));
  }

  const issued = issuedList();
  const lists = { access_token: issued.access_tokens, refresh_token: issued.refresh_tokens, authorization_code: issued.codes };
  for (const [kind, list] of Object.entries(lists)) provider.on(`${kind}.saved`, (token) => list.push(token.jti));

  const strict = provider.callback();
  const hidden = createServer(strict);
  await listen(hidden, 0);
  const inside = { provider, post: (path, form) => post(hidden.address().port, origin, path, form), strict };

  front.on('request', async (request, response) => {
    try {
      const url = new URL(request.url, origin);
      if (url.pathname === '/issued') return sendJson(response, 200, issued);
      if (await handle(request, response, url, inside)) return;
      strict(request, response);
    } catch (error) {
      process.stderr.write(`${error.stack}\n`);
      if (!response.headersSent) sendJson(response, 500, { error: 'internal_failure' });
    }
  });

  announce(about, given);
}

/** What is secret here, for a test that searches the other side for it. */
export function issuedList() {
  return { access_tokens: [], refresh_tokens: [], codes: [] };
}

/** Says on stdout where it listens, and ends when it is told to, or when whoever started it has ended. */
export function announce(about, given) {
  const end = () => process.exit(0);
  process.on('SIGTERM', end);
  process.on('SIGINT', end);
  if (given['with-parent']) process.stdin.on('end', end).on('error', end).resume();
  process.stdout.write(`${JSON.stringify({ ...about, client_id: given['client-id'], client_secret: given['client-secret'] })}\n`);
}

/**
 * The person: signs in and agrees without being asked, so that anything that follows redirects and keeps
 * cookies gets through. An account that begins with `deny` refuses. `consented(params, grantId)` is told.
 */
export async function person(request, response, url, inside, { account, consented }) {
  if (!url.pathname.startsWith('/interaction/')) return false;
  const { provider } = inside;
  const { params, session } = await provider.interactionDetails(request, response);
  const accountId = session?.accountId ?? account(params);
  if (accountId.startsWith('deny')) {
    await provider.interactionFinished(request, response, { error: 'access_denied' }, { mergeWithLastSubmission: false });
    return true;
  }
  const grant = new provider.Grant({ accountId, clientId: params.client_id });
  grant.addOIDCScope(params.scope ?? '');
  const grantId = await grant.save();
  consented(params, grantId);
  await provider.interactionFinished(request, response, { login: { accountId }, consent: { grantId } }, { mergeWithLastSubmission: false });
  return true;
}

/** Hands an altered GET on to the strict side. */
export function rewrite(request, url) {
  request.url = url.pathname + url.search;
  return false;
}

export function listen(server, port) {
  return new Promise((resolve, reject) => server.once('error', reject).listen(port, '127.0.0.1', resolve));
}

// Not `fetch`: the inner server has to see the outer Host, or it would put another issuer into its answers.
function post(port, origin, path, form) {
  const body = form.toString();
  return new Promise((resolve, reject) => {
    const call = httpRequest({
      host: '127.0.0.1', port, path, method: 'POST',
      headers: { host: new URL(origin).host, 'content-type': 'application/x-www-form-urlencoded', 'content-length': Buffer.byteLength(body) },
    }, async (answer) => {
      const parts = [];
      for await (const part of answer) parts.push(part);
      const text = Buffer.concat(parts).toString('utf8');
      resolve({ status: answer.statusCode, body: text ? JSON.parse(text) : {} });
    });
    call.on('error', reject);
    call.end(body);
  });
}
