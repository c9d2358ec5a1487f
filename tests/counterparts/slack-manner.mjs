// A strict third-party authorization server (npm `oidc-provider`, certified) dressed in Slack's manner:
// HTTP 200 with ok:true|false, commas for spaces, the user's token under `authed_user`, a bot token of its
// own beside it, rotation without grace, and reuse of a spent refresh token ends the grant. The grace that
// Slack documents is left out on purpose: this is the strict case. README.md says how to drive it.
import { bearer, options, serve, person, readForm, rewrite, sendJson } from './manners.mjs';

const SCOPES = [
  'channels:history', 'channels:read', 'chat:write', 'files:read', 'groups:read', 'im:history', 'im:read', 'im:write',
  'reactions:read', 'reactions:write', 'search:read', 'team:read', 'users.profile:read', 'users:read', 'users:read.email',
];
const TEAM = { id: 'T0TEST', name: 'Test workspace' };
const BOT = 'U0BOT';
// The strict side answers no request without any scope: this one stands for "nothing for the person".
const BOT_ONLY = 'bot_only';

const given = options({
  'access-token-seconds': { type: 'string', default: '43200' },
  // The app setting that allows PKCE; without it a verifier is refused, as Slack does.
  pkce: { type: 'boolean', default: false },
  scope: { type: 'string', multiple: true, default: [] },
});
const known = [...new Set([...SCOPES, ...given.scope])];
const life = Number(given['access-token-seconds']);

// What Slack keeps about an installation and the strict side has no word for.
const botScopes = new Map(); // grant of the user → bot scopes that were asked with it
const botGrants = new Map(); // grant of the bot → grant of the user that installed it
const commas = (scopes) => (scopes ?? '').split(/[ ,]+/).filter(Boolean).join(',');
const spaces = (scopes) => (scopes ?? '').split(/[ ,]+/).filter(Boolean).join(' ');

await serve(given, (origin) => ({
  configuration: {
    scopes: [...known, BOT_ONLY],
    rotateRefreshToken: true,
    extraParams: ['bot_scope'],
    issueRefreshToken: () => true,
    ttl: { AccessToken: life, AuthorizationCode: 600, RefreshToken: 15_552_000, Grant: 15_552_000, Interaction: 600, Session: 86_400 },
    features: { devInteractions: { enabled: false } },
    routes: { authorization: '/oauth/v2/authorize', token: '/inner/token' },
    findAccount: (_ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  },

  announce: {
    manner: 'slack',
    authorize_url: `${origin}/oauth/v2/authorize`,
    token_url: `${origin}/api/oauth.v2.access`,
    revoke_url: `${origin}/api/auth.revoke`,
    userinfo_url: `${origin}/api/auth.test`,
    api_base_url: `${origin}/api/`,
    team: TEAM.id,
    scopes: known,
  },

  async handle(request, response, url, inside) {
    withoutIssuer(response);
    const calls = { '/api/oauth.v2.access': access, '/api/auth.test': test, '/api/auth.revoke': revoke, '/api/apps.uninstall': uninstall };
    const call = calls[url.pathname];
    if (call) {
      sendJson(response, 200, await call(request, url, inside));
      return true;
    }
    if (url.pathname === '/oauth/v2/authorize') return authorize(request, url);
    return person(request, response, url, inside, {
      account: (params) => params.login_hint ?? 'U0PERSON',
      consented: (params, grantId) => params.bot_scope && botScopes.set(grantId, params.bot_scope),
    });
  },
}));

// The strict side names itself in every answer through the browser (RFC 9207); Slack does not.
function withoutIssuer(response) {
  const set = response.setHeader.bind(response);
  response.setHeader = (name, value) => {
    if (name.toLowerCase() !== 'location' || !given['redirect-uri'].some((uri) => value.startsWith(`${uri}?`))) return set(name, value);
    const target = new URL(value);
    target.searchParams.delete('iss');
    return set(name, target.href);
  };
}

const no = (error) => ({ ok: false, error });

function authorize(request, url) {
  const query = url.searchParams;
  const [bot, user] = [spaces(query.get('scope')), spaces(query.get('user_scope'))];
  query.set('response_type', 'code');
  query.set('scope', user || BOT_ONLY);
  if (bot) query.set('bot_scope', bot);
  query.delete('user_scope');
  // The setting is off: Slack says so at the exchange, where the verifier comes along.
  if (!given.pkce) ['code_challenge', 'code_challenge_method'].forEach((name) => query.delete(name));
  return rewrite(request, url);
}

async function access(request, _url, inside) {
  if (request.method !== 'POST') return no('invalid_arguments');
  const form = await readForm(request);
  if (!form.has('grant_type')) form.set('grant_type', 'authorization_code');
  const refreshing = form.get('grant_type') === 'refresh_token';
  if (form.has('code_verifier') && !given.pkce) return no('pkce_not_allowed');
  const { body } = await inside.post('/inner/token', form);
  if (body.error) return no(slackError(body.error, refreshing, form));
  return refreshing ? refreshed(body, inside) : installed(body, inside);
}

function slackError(error, refreshing, form) {
  if (error === 'invalid_client') return form.get('client_id') === given['client-id'] ? 'bad_client_secret' : 'invalid_client_id';
  if (error === 'invalid_grant') return refreshing ? 'invalid_refresh_token' : 'invalid_code';
  if (error === 'unsupported_grant_type') return 'invalid_grant_type';
  return 'invalid_arguments';
}

const envelope = () => ({ ok: true, app_id: 'A0TEST', team: TEAM, enterprise: null, is_enterprise_install: false });

async function installed(body, { provider }) {
  const issued = await provider.AccessToken.find(body.access_token);
  const user = { id: issued.accountId };
  if (issued.scope !== BOT_ONLY) {
    Object.assign(user, { scope: commas(issued.scope), token_type: 'user', access_token: body.access_token, refresh_token: body.refresh_token, expires_in: body.expires_in });
  } else {
    // Only a bot was asked for: the person's own pair must not exist.
    await provider.RefreshToken.revokeByGrantId(issued.grantId);
    await issued.destroy();
  }
  const asked = botScopes.get(issued.grantId);
  const bot = asked ? await botPair(provider, asked, issued.grantId) : {};
  return { ...envelope(), ...bot, authed_user: user };
}

// The bot has a grant of its own, so that reuse of one refresh token cannot end the other.
async function botPair(provider, scope, installer) {
  const client = await provider.Client.find(given['client-id']);
  const grant = new provider.Grant({ accountId: BOT, clientId: client.clientId });
  grant.addOIDCScope(scope);
  const grantId = await grant.save();
  botGrants.set(grantId, installer);
  const common = { accountId: BOT, client, grantId, scope, gty: 'authorization_code', expiresWithSession: false };
  const accessToken = await new provider.AccessToken(common).save();
  const refreshToken = await new provider.RefreshToken({ ...common, rotations: 0, iiat: Math.floor(Date.now() / 1000) }).save();
  return { access_token: accessToken, refresh_token: refreshToken, token_type: 'bot', scope: commas(scope), bot_user_id: BOT, expires_in: life };
}

async function refreshed(body, { provider }) {
  const issued = await provider.AccessToken.find(body.access_token);
  const bot = botGrants.has(issued.grantId);
  return {
    ...envelope(),
    access_token: body.access_token, refresh_token: body.refresh_token, expires_in: body.expires_in,
    token_type: bot ? 'bot' : 'user', scope: commas(issued.scope),
    ...(bot ? { bot_user_id: BOT } : { authed_user: { id: issued.accountId } }),
  };
}

/** The token of a Web API call, from the header or the form, as an object of the strict side. */
async function tokenOf(request, url, { provider }) {
  const form = request.method === 'POST' ? await readForm(request) : url.searchParams;
  const value = bearer(request) || form.get('token') || '';
  const access = value ? await provider.AccessToken.find(value) : undefined;
  return { form, access, any: access ?? (value ? await provider.RefreshToken.find(value) : undefined), value };
}

async function test(request, url, inside) {
  const { access, value } = await tokenOf(request, url, inside);
  if (!value) return no('not_authed');
  if (!access) return no('invalid_auth');
  const bot = botGrants.has(access.grantId);
  return {
    ok: true, url: 'https://test.slack.example/', team: TEAM.name, team_id: TEAM.id, user: access.accountId.toLowerCase(), user_id: access.accountId,
    ...(bot ? { bot_id: 'B0BOT' } : {}), is_enterprise_install: false, expires_in: access.exp - Math.floor(Date.now() / 1000),
  };
}

// With rotation on, Slack ends that single token and nothing else.
async function revoke(request, url, inside) {
  const { form, any, value } = await tokenOf(request, url, inside);
  if (!value) return no('not_authed');
  if (!any) return no('invalid_auth');
  if (form.get('test') === '1' || form.get('test') === 'true') return { ok: true, revoked: false };
  await any.destroy();
  return { ok: true, revoked: true };
}

async function uninstall(request, url, inside) {
  const { form, access, value } = await tokenOf(request, url, inside);
  if (!value) return no('not_authed');
  if (!access) return no('invalid_auth');
  if (form.get('client_id') !== given['client-id']) return no('invalid_client_id');
  if (form.get('client_secret') !== given['client-secret']) return no('bad_client_secret');
  const user = botGrants.get(access.grantId) ?? access.grantId;
  const ended = [user, ...[...botGrants].filter(([, installer]) => installer === user).map(([grant]) => grant)];
  for (const grant of ended) {
    await inside.provider.AccessToken.revokeByGrantId(grant);
    await inside.provider.RefreshToken.revokeByGrantId(grant);
  }
  return { ok: true };
}
