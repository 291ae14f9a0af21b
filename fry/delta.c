// The gated delta net between its projections, forward and backward, token by token: on a CPU and for heads of 32 the
// recurrence is far cheaper than the chunked form's T x T matrices. Every array is fp32 and contiguous.
//
// mixed [B,T,256]: queries (2 heads), keys (2 heads), values (4 heads) before the convolution; z [B,T,128]: the gate;
// ba [B,T,8]: the logits of beta and of the decay, 4 heads each; out [B,T,128].
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { D = 32, HK = 2, HV = 4, C = 2 * HK * D + HV * D, O = HV * D, V0 = 2 * HK * D };

static float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
static float softplus(float x) { return x > 20.0f ? x : log1pf(expf(x)); }

static float dot(const float *a, const float *b) {
    float s = 0;
    for (int j = 0; j < D; j++) s += a[j] * b[j];
    return s;
}

// pre [T,C]: what the convolution gives; act [T,C]: after silu, queries and keys of length 1; inv [T,2*HK]: their 1/length.
static void convolve(const float *x, const float *w, int t_len, float *pre, float *act, float *inv) {
    for (int t = 0; t < t_len; t++) {
        float *y = pre + t * C, *s = act + t * C;
        memset(y, 0, C * sizeof(float));
        for (int i = 0; i < 4; i++) {
            if (t - 3 + i < 0) continue;
            const float *xi = x + (t - 3 + i) * C, *wi = w + i * C;
            for (int c = 0; c < C; c++) y[c] += xi[c] * wi[c];
        }
        for (int c = 0; c < C; c++) s[c] = y[c] / (1.0f + expf(-y[c]));
        for (int h = 0; h < 2 * HK; h++) {
            float *u = s + h * D, r = 1.0f / sqrtf(dot(u, u) + 1e-6f);
            inv[t * 2 * HK + h] = r;
            for (int j = 0; j < D; j++) u[j] *= r;
        }
    }
}

// One step of the recurrence: next = decay * state + k u', and u.
static void advance(const float *state, float *next, float *u, float *kv, const float *k, const float *v, float decay, float beta) {
    for (int j = 0; j < D; j++) kv[j] = 0;
    for (int i = 0; i < D; i++)
        for (int j = 0; j < D; j++) kv[j] += k[i] * state[i * D + j];
    for (int j = 0; j < D; j++) {
        kv[j] *= decay;
        u[j] = beta * (v[j] - kv[j]);
    }
    for (int i = 0; i < D; i++)
        for (int j = 0; j < D; j++) next[i * D + j] = decay * state[i * D + j] + k[i] * u[j];
}

static void read_out(const float *state, const float *q, float *o) {
    const float scale = 1.0f / sqrtf(D);
    for (int j = 0; j < D; j++) o[j] = 0;
    for (int i = 0; i < D; i++)
        for (int j = 0; j < D; j++) o[j] += scale * q[i] * state[i * D + j];
}

void delta_forward(const float *mixed, const float *conv, const float *z, const float *ba, const float *a_log, const float *dt_bias,
                   const float *norm, float *out, int batch, int t_len) {
    float *pre = malloc(sizeof(float) * t_len * C), *act = malloc(sizeof(float) * t_len * C), *inv = malloc(sizeof(float) * t_len * 2 * HK);
    float state[D * D], u[D], kv[D], o[D];
    for (int b = 0; b < batch; b++) {
        convolve(mixed + (size_t)b * t_len * C, conv, t_len, pre, act, inv);
        for (int h = 0; h < HV; h++) {
            memset(state, 0, sizeof state);
            for (int t = 0; t < t_len; t++) {
                const size_t at = (size_t)b * t_len + t;
                const float *q = act + t * C + h / 2 * D, *k = q + HK * D, *v = act + t * C + V0 + h * D;
                const float decay = expf(-expf(a_log[h]) * softplus(ba[at * 8 + 4 + h] + dt_bias[h]));
                advance(state, state, u, kv, k, v, decay, sigmoid(ba[at * 8 + h]));
                read_out(state, q, o);
                const float r = 1.0f / sqrtf(dot(o, o) / D + 1e-6f);
                for (int j = 0; j < D; j++) {
                    const float g = z[at * O + h * D + j];
                    out[at * O + h * D + j] = o[j] * r * norm[j] * g / (1.0f + expf(-g));
                }
            }
        }
    }
    free(pre), free(act), free(inv);
}

// Every d-array must be zero on entry; they are added to.
void delta_backward(const float *mixed, const float *conv, const float *z, const float *ba, const float *a_log, const float *dt_bias,
                    const float *norm, const float *dout, float *dmixed, float *dconv, float *dz, float *dba, float *da_log,
                    float *ddt_bias, float *dnorm, int batch, int t_len) {
    const float scale = 1.0f / sqrtf(D);
    float *pre = malloc(sizeof(float) * t_len * C), *act = malloc(sizeof(float) * t_len * C), *inv = malloc(sizeof(float) * t_len * 2 * HK);
    float *dact = malloc(sizeof(float) * t_len * C), *us = malloc(sizeof(float) * t_len * D), *kvs = malloc(sizeof(float) * t_len * D);
    float *states = malloc(sizeof(float) * (t_len + 1) * D * D), *decays = malloc(sizeof(float) * t_len);
    float ds[D * D], o[D], dn[D], d_o[D], du[D], dkv[D], sum[D];
    for (int b = 0; b < batch; b++) {
        convolve(mixed + (size_t)b * t_len * C, conv, t_len, pre, act, inv);
        memset(dact, 0, sizeof(float) * t_len * C);
        for (int h = 0; h < HV; h++) {
            const float rate = expf(a_log[h]);
            memset(states, 0, sizeof(float) * D * D);
            for (int t = 0; t < t_len; t++) {
                const size_t at = (size_t)b * t_len + t;
                decays[t] = expf(-rate * softplus(ba[at * 8 + 4 + h] + dt_bias[h]));
                advance(states + t * D * D, states + (t + 1) * D * D, us + t * D, kvs + t * D, act + t * C + (HK + h / 2) * D,
                        act + t * C + V0 + h * D, decays[t], sigmoid(ba[at * 8 + h]));
            }
            memset(ds, 0, sizeof ds);
            for (int t = t_len - 1; t >= 0; t--) {
                const size_t at = (size_t)b * t_len + t;
                const float *q = act + t * C + h / 2 * D, *k = q + HK * D, *v = act + t * C + V0 + h * D, *u = us + t * D, *kv = kvs + t * D;
                const float *before = states + t * D * D, *after = before + D * D, *go = dout + at * O + h * D, *g = z + at * O + h * D;
                float *dq = dact + t * C + h / 2 * D, *dk = dq + HK * D, *dv = dact + t * C + V0 + h * D;
                read_out(after, q, o);
                const float r = 1.0f / sqrtf(dot(o, o) / D + 1e-6f);
                for (int j = 0; j < D; j++) {
                    const float s = sigmoid(g[j]), gate = g[j] * s, n = o[j] * r;
                    dz[at * O + h * D + j] += go[j] * n * norm[j] * (s + gate * (1.0f - s));
                    dnorm[j] += go[j] * n * gate;
                    dn[j] = go[j] * norm[j] * gate;
                }
                const float along = dot(dn, o) * r * r / D;
                for (int j = 0; j < D; j++) d_o[j] = r * (dn[j] - o[j] * along);
                const float beta = sigmoid(ba[at * 8 + h]), decay = decays[t];
                for (int j = 0; j < D; j++) du[j] = 0;
                for (int i = 0; i < D; i++) {
                    float *row = ds + i * D;
                    dq[i] += scale * dot(after + i * D, d_o);
                    const float qi = scale * q[i], ki = k[i];
                    for (int j = 0; j < D; j++) {
                        row[j] += qi * d_o[j];
                        du[j] += ki * row[j];
                    }
                    dk[i] += dot(row, u);
                }
                float dbeta = 0;
                for (int j = 0; j < D; j++) {
                    dv[j] += beta * du[j];
                    dbeta += du[j] * (v[j] - kv[j]);
                    dkv[j] = -beta * du[j];
                    sum[j] = 0;
                }
                for (int i = 0; i < D; i++) {
                    float *row = ds + i * D;
                    const float *old = before + i * D, ki = k[i];
                    dk[i] += decay * dot(dkv, old);
                    for (int j = 0; j < D; j++) {
                        row[j] += ki * dkv[j];
                        sum[j] += row[j] * old[j];
                        row[j] *= decay;
                    }
                }
                float ddecay = 0;
                for (int j = 0; j < D; j++) ddecay += sum[j];
                dba[at * 8 + h] += dbeta * beta * (1.0f - beta);
                const float x = ba[at * 8 + 4 + h] + dt_bias[h], dlog = ddecay * decay, dx = -dlog * rate * sigmoid(x);
                dba[at * 8 + 4 + h] += dx;
                ddt_bias[h] += dx;
                da_log[h] -= dlog * rate * softplus(x);
            }
        }
        for (int t = 0; t < t_len; t++) {
            float *d = dact + t * C;
            for (int h = 0; h < 2 * HK; h++) {
                const float *u = act + t * C + h * D, r = inv[t * 2 * HK + h];
                const float along = dot(d + h * D, u);
                for (int j = 0; j < D; j++) d[h * D + j] = r * (d[h * D + j] - u[j] * along);
            }
            for (int c = 0; c < C; c++) {
                const float y = pre[t * C + c], s = 1.0f / (1.0f + expf(-y));
                d[c] *= s + y * s * (1.0f - s);
            }
            for (int i = 0; i < 4; i++) {
                if (t - 3 + i < 0) continue;
                const size_t at = ((size_t)b * t_len + t - 3 + i) * C;
                for (int c = 0; c < C; c++) {
                    dmixed[at + c] += d[c] * conv[i * C + c];
                    dconv[i * C + c] += d[c] * mixed[at + c];
                }
            }
        }
    }
    free(pre), free(act), free(inv), free(dact), free(us), free(kvs), free(states), free(decays);
}
