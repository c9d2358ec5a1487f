// A strict third-party authorization server (npm `oidc-provider`, certified) dressed in Google's manner:
// no rotation, a refresh token only with `access_type=offline`, identity scopes in long form, revocation
// without client authentication that ends the whole grant. README.md says how to drive it.
import { options, serve, person, readForm, rewrite, sendJson } from './manners.mjs';

const APIS = [
  'https://www.googleapis.com/auth/calendar.events', 'https://www.googleapis.com/auth/calendar.readonly',
  'https://www.googleapis.com/auth/gmail.readonly', 'https://www.googleapis.com/auth/gmail.send',
  'https://www.googleapis.com/auth/drive.readonly', 'https://www.googleapis.com/auth/drive.file',
];

const given = options({
  'access-token-seconds': { type: 'string', default: '3600' },
  scope: { type: 'string', multiple: true, default: [] },
});
const known = [...new Set([...APIS, ...given.scope])];

// Google answers identity scopes in their long form and takes either.
const LONG = { email: 'https://www.googleapis.com/auth/userinfo.email', profile: 'https://www.googleapis.com/auth/userinfo.profile' };
const SHORT = Object.fromEntries(Object.entries(LONG).map(([short, long]) => [long, short]));
const translate = (scopes, table) => scopes.split(' ').filter(Boolean).map((scope) => table[scope] ?? scope).join(' ');

const offline = new Set();

await serve(given, (origin) => ({
  configuration: {
    scopes: ['openid', 'email', 'profile', ...known],
    claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
    rotateRefreshToken: false,
    extraParams: ['access_type'],
    issueRefreshToken: (_ctx, _client, code) => offline.has(code.grantId),
    ttl: { AccessToken: Number(given['access-token-seconds']), AuthorizationCode: 600, IdToken: 3600, RefreshToken: 15_552_000, Grant: 15_552_000, Interaction: 600, Session: 86_400 },
    features: { devInteractions: { enabled: false } },
    routes: { authorization: '/o/oauth2/v2/auth', token: '/inner/token', userinfo: '/v1/userinfo', jwks: '/oauth2/v3/certs' },
    findAccount: (_ctx, id) => ({
      accountId: id,
      claims: () => ({ sub: id, email: `${id}@example.com`, email_verified: true, name: `Test person ${id}` }),
    }),
  },

  announce: {
    manner: 'google',
    issuer: origin,
    authorize_url: `${origin}/o/oauth2/v2/auth`,
    token_url: `${origin}/token`,
    revoke_url: `${origin}/revoke`,
    userinfo_url: `${origin}/v1/userinfo`,
    jwks_url: `${origin}/oauth2/v3/certs`,
    scopes: ['openid', 'email', 'profile', ...known],
  },

  async handle(request, response, url, inside) {
    if (url.pathname.startsWith('/o/oauth2/v2/auth')) return authorize(request, url);
    if (url.pathname === '/token' && request.method === 'POST') return token(request, response, inside);
    if (url.pathname === '/revoke' && request.method === 'POST') return revoke(request, response, url, inside);
    return person(request, response, url, inside, {
      account: (params) => params.login_hint ?? 'google-person',
      consented: (params, grantId) => params.access_type === 'offline' && offline.add(grantId),
    });
  },
}));

function authorize(request, url) {
  const query = url.searchParams;
  if (query.has('scope')) query.set('scope', translate(query.get('scope'), SHORT));
  // The strict side knows no `select_account`; consent is always shown here anyway.
  query.delete('prompt');
  return rewrite(request, url);
}

async function token(request, response, inside) {
  const form = await readForm(request);
  const refreshing = form.get('grant_type') === 'refresh_token';
  const { status, body } = await inside.post('/inner/token', form);
  if (body.scope !== undefined) body.scope = translate(body.scope, LONG);
  // Google repeats no refresh token on refresh.
  if (refreshing) delete body.refresh_token;
  if (body.error === 'invalid_grant') body.error_description = refreshing ? 'Token has been expired or revoked.' : 'Malformed auth code.';
  sendJson(response, status, body);
  return true;
}

// Either token ends everything that was granted with it; a dead one is 400.
async function revoke(request, response, url, { provider }) {
  const form = await readForm(request);
  const value = form.get('token') ?? url.searchParams.get('token') ?? '';
  const found = (await provider.AccessToken.find(value)) ?? (await provider.RefreshToken.find(value));
  if (!found) {
    sendJson(response, 400, { error: 'invalid_token', error_description: 'Token expired or revoked' });
    return true;
  }
  await provider.RefreshToken.revokeByGrantId(found.grantId);
  await provider.AccessToken.revokeByGrantId(found.grantId);
  await (await provider.Grant.find(found.grantId))?.destroy();
  sendJson(response, 200, {});
  return true;
}
