/* SPDX-License-Identifier: MIT */
/* The protocol of commit, checkpoint, trim and recovery, with a crash at any step. README.md beside this file says which function
 * each part stands for. A rule that is broken on purpose is a BREAK_… macro. */

#ifndef OPS
#define OPS 2      /* operations in the history */
#endif
#ifndef CRASHES
#define CRASHES 2  /* power cuts and kills, of recovery as well */
#endif
#ifndef CHECKPOINTS
#define CHECKPOINTS 1 /* besides those of recovery */
#endif
#ifndef FAILS
#define FAILS 1    /* failed syncs and log writes */
#endif
#ifndef ROTS
#define ROTS 1     /* durable records or superblock slots that rot */
#endif
#ifndef ATTESTS
#define ATTESTS 1
#endif
#define NB 5       /* blocks of `data` */
#define NS 6       /* segment numbers */
#define NP 1       /* groups of a segment */
#define NC 12      /* cells: two records of a group, NS * NP * 2 */
#define GARBAGE 255
#define CELL(s, p, i) (((s) * NP + (p)) * 2 + (i))
#define NODE(id) (32 + (id))

typedef Super { byte q, e, k, i, l, g, r, d, n; bool c; } /* q 0: does not validate. c: a record of this epoch is at the cut */

/* ---- the disk: v as the page cache shows it, d as the platter holds it; pend 1 unsynced, 2 lost by a failed sync, looks clean ---- */
byte bv[NB], bd[NB], bp[NB];
Super vsup[2], dsup[2]; byte psup[2];
/* The log: a write in flight is kept in memory below; what is here is on the platter. */
byte cT[NC], cL[NC], cA[NC], cB[NC], cD[NC], cE[NC], cS[NC]; /* type, lsn, operation or sequence, block, durable lsn, epoch, number */
byte hE[NS], hS[NS], hF[NS], hD[NS], hQ[NS]; bool ex[NS];
byte rnf, rnt;          /* a rename whose directory is not synced: from, to; 255 none */
/* A log write that nobody has seen end: in flight, or left in the cache by a kill. */
byte ug, upos, un, uT[2], uA[2], uB[2], uL, uD; bool uh; byte uhQ, uE;
bool unsynced;          /* there is one */

/* ---- memory of the process ---- */
bool serving, failed; byte mode;   /* 0 dead, 1 alive */
byte k, cid, cblk;                 /* the tree: operation, its identity, its block */
byte used, wait, frz;              /* sets of blocks: in use; freed since the freeze; freed before it */
byte on, oT[2], oA[2], oB[2];      /* open group */
byte appended, durable, fl, fn, fT[2], fA[2], fB[2], dmask; /* flight: 0 none, 1 data sync, 2 write */
byte cur, pos, last, first;        /* segments: 255 none yet */
byte ep, startlsn; bool quiet;
byte mq;                           /* newest sequence whose marker is durable, as the process knows */
Super nw;                          /* the newest published one */
byte ck, zk, zi, zl, zr, zd, zg, zm; bool zc; /* checkpoint step and what is frozen, lsn of the marker */
byte rs, endseg, rlast;            /* step of recovery */

/* ---- what only the checker knows ---- */
byte hist[OPS + 1], acked, inc, crashes, cks, fails, rots, atts, rotL, rotE, mdur; bool rotted, refused;
byte a, b, c, x, y; bool t, ok;    /* scratch, zero between steps */

#define BIT(n) (1 << (n))
#define IN(set, n) (((set) >> (n)) & 1)

inline copy(to, from) {
    to.q = from.q; to.e = from.e; to.k = from.k; to.i = from.i; to.l = from.l; to.g = from.g; to.r = from.r; to.d = from.d;
    to.n = from.n; to.c = from.c
}

/* A block that may be needed is never written: one that a superblock reaches which recovery may choose, or that a record after its cut names. */
inline check_super(s) {
    if
    :: s.q > 0 && s.q >= mdur ->
        assert(x != s.r && x != s.d);
        y = 0;
        do
        :: y < NC ->
            assert(!(cT[y] == 1 && cE[y] == s.e && cS[y] == y / (2 * NP) && cL[y] > s.l && cL[y] <= durable && cB[y] == x && ex[y / (2 * NP)]));
            y++
        :: else -> break
        od;
        y = 0
    :: else
    fi
}
inline write_block(n, content) {
    x = n; check_super(dsup[0]); check_super(dsup[1]); check_super(vsup[0]); check_super(vsup[1]); x = 0;
    bv[n] = content; bp[n] = 1
}
inline alloc(ret) {
    ret = 0;
    do
    :: ret < NB && IN(used, ret) -> ret++
    :: else -> break
    od
}
inline sync_blocks(mask) {
    x = 0;
    do
    :: x < NB -> if :: IN(mask, x) && bp[x] == 1 -> bd[x] = bv[x]; bp[x] = 0 :: else fi; x++
    :: else -> break
    od;
    x = 0
}
/* A failed sync marks pages clean that are not on disk. */
inline lose_blocks(mask) {
    x = 0;
    do
    :: x < NB -> if :: IN(mask, x) && bp[x] == 1 -> bp[x] = 2 :: else fi; x++
    :: else -> break
    od;
    x = 0
}
inline put_cell(i) {
    x = CELL(ug, upos, i);
    cT[x] = uT[i]; cA[x] = uA[i]; cB[x] = uB[i]; cL[x] = uL + i; cD[x] = uD; cE[x] = uE; cS[x] = ug; x = 0
}
inline put_header() { hE[ug] = uE; hS[ug] = ug; hF[ug] = uL; hD[ug] = uD; hQ[ug] = uhQ }
inline forget_unsynced() {
    unsynced = false; ug = 0; upos = 0; un = 0; uL = 0; uD = 0; uh = false; uhQ = 0; uE = 0;
    uT[0] = 0; uT[1] = 0; uA[0] = 0; uA[1] = 0; uB[0] = 0; uB[1] = 0
}
inline land_all() {
    if :: uh -> put_header() :: else fi;
    put_cell(0);
    if :: un > 1 -> put_cell(1) :: else fi;
    forget_unsynced()
}
/* Any subset of what was in flight. */
inline land_some() {
    if
    :: unsynced ->
        if :: uh -> if :: put_header() :: skip fi :: else fi;
        if :: put_cell(0) :: skip fi;
        if :: un > 1 -> if :: put_cell(1) :: skip fi :: else fi;
        forget_unsynced()
    :: else
    fi
}

/* ---- memory is lost ---- */
inline forget() {
    serving = false; failed = false; mode = 0; k = 0; cid = 0; cblk = 0; used = 0; wait = 0; frz = 0; on = 0;
    oT[0] = 0; oT[1] = 0; oA[0] = 0; oA[1] = 0; oB[0] = 0; oB[1] = 0; appended = 0; durable = 0; fl = 0; fn = 0;
    fT[0] = 0; fT[1] = 0; fA[0] = 0; fA[1] = 0; fB[0] = 0; fB[1] = 0; dmask = 0; cur = 255; pos = 0; last = 0; first = 0;
    ep = 0; startlsn = 0; quiet = false; mq = 0; ck = 0; zk = 0; zi = 0; zl = 0; zr = 0; zd = 0; zg = 0; zm = 0; zc = false;
    rs = 0; endseg = 0; rlast = 0;
    nw.q = 0; nw.e = 0; nw.k = 0; nw.i = 0; nw.l = 0; nw.g = 0; nw.r = 0; nw.d = 0; nw.n = 0; nw.c = false
}
inline settle_slot(n) {
    if
    :: psup[n] != 0 ->
        if
        :: copy(dsup[n], vsup[n])
        :: copy(vsup[n], dsup[n])
        :: vsup[n].q = 0; copy(dsup[n], vsup[n])
        fi;
        psup[n] = 0
    :: else
    fi
}
inline move_segment(f, t_) { /* rename: what it holds moves along */
    hE[t_] = hE[f]; hS[t_] = hS[f]; hF[t_] = hF[f]; hD[t_] = hD[f]; hQ[t_] = hQ[f]; ex[t_] = true; ex[f] = false;
    hE[f] = 0; hS[f] = 0; hF[f] = 0; hD[f] = 0; hQ[f] = 0;
    x = 0;
    do
    :: x < 2 * NP ->
        y = CELL(f, 0, 0) + x; a = CELL(t_, 0, 0) + x;
        cT[a] = cT[y]; cL[a] = cL[y]; cA[a] = cA[y]; cB[a] = cB[y]; cD[a] = cD[y]; cE[a] = cE[y]; cS[a] = cS[y];
        cT[y] = 0; cL[y] = 0; cA[y] = 0; cB[y] = 0; cD[y] = 0; cE[y] = 0; cS[y] = 0; x++
    :: else -> break
    od;
    x = 0; y = 0; a = 0
}
inline power_cut() {
    b = 0;
    do
    :: b < NB ->
        if
        :: bp[b] != 0 -> if :: bd[b] = bv[b] :: skip :: bd[b] = GARBAGE fi; bv[b] = bd[b]; bp[b] = 0
        :: else
        fi;
        b++
    :: else -> break
    od;
    b = 0;
    settle_slot(0); settle_slot(1);
    land_some();
    if
    :: rnf != 255 -> if :: skip :: move_segment(rnt, rnf) fi; rnf = 255; rnt = 255
    :: else
    fi;
    if /* the file that r1 has renamed into place, its directory not synced: old or new is decided here (see r1) */
    :: rs == 2 -> if :: copy(vsup[0], nw); copy(dsup[0], nw); copy(vsup[1], nw); copy(dsup[1], nw) :: skip fi
    :: else
    fi
}
/* A kill leaves the cache as it is. What was in flight is there in part, unsynced; a rename has happened. */
inline kill() {
    if :: fl == 2 && un > 1 -> if :: un = 1 :: skip fi :: else fi;
    if
    :: rs == 2 -> copy(vsup[0], nw); copy(dsup[0], nw); copy(vsup[1], nw); copy(dsup[1], nw); psup[0] = 0; psup[1] = 0
    :: else
    fi
}
/* Durable bytes rot: the newest slot, or a record. */
inline rot() {
    if
    :: psup[0] == 0 && psup[1] == 0 && dsup[0].q != dsup[1].q ->
        a = (dsup[0].q > dsup[1].q -> 0 : 1); rots++;
        dsup[a].q = 0; vsup[a].q = 0; rotted = true; a = 0
    :: select(b : 0 .. 11);
        if
        :: cT[b] != 0 && cS[b] == b / (2 * NP) && cE[b] > 0 && !unsynced ->
            rotL = cL[b]; rotE = cE[b]; cT[b] = 0; cL[b] = 0; cA[b] = 0; cB[b] = 0; cD[b] = 0; cE[b] = 0; cS[b] = 0;
            rots++; rotted = true
        :: else
        fi;
        b = 0
    fi
}

/* ---- recovery: reading (examine_log, wal_scan, wal_scan_tail, wal_scan_survey) ---- */
#define VISIBLE(s, p, i) (unsynced && ug == (s) && upos == (p) && (i) < un)
byte gT, gL, gA, gB, gE, gS;
inline read_cell(s, p, i) {
    if
    :: VISIBLE(s, p, i) -> gT = uT[i]; gL = uL + i; gA = uA[i]; gB = uB[i]; gE = uE; gS = ug
    :: else ->
        x = CELL(s, p, i);
        gT = cT[x]; gL = cL[x]; gA = cA[x]; gB = cB[x]; gE = cE[x]; gS = cS[x]; x = 0
    fi
}
#define HEADER_OURS(s) (ex[s] && ((hE[s] == nw.e && hS[s] == (s)) || (unsynced && uh && ug == (s) && uE == nw.e)))
#define HEADER_FIRST(s) ((unsynced && uh && ug == (s)) -> uL : hF[s])

inline refuse() { refused = true }
byte want, seg, at; bool stop, proof, old;
inline scan() {
    /* nw is the chosen one; replay from its root */
    k = nw.k; cid = nw.i; cblk = nw.d; used = BIT(nw.r) | BIT(nw.d); wait = 0;
    seg = nw.g; stop = false; want = nw.n; rlast = nw.l; endseg = seg;
    if
    :: !ex[seg] -> refuse(); stop = true
    :: ex[seg] && nw.c && !HEADER_OURS(seg) -> refuse(); stop = true /* holds the record at the cut */
    :: ex[seg] && nw.c && HEADER_OURS(seg) -> want = HEADER_FIRST(seg)
    :: else
    fi;
    do
    :: stop -> break
    :: !stop && !(seg < NS && ex[seg] && HEADER_OURS(seg)) ->
        if
        :: seg < NS && !ex[seg] && seg > nw.g -> refuse() /* the successor of a used one */
        :: else
        fi;
        stop = true
    :: !stop && seg < NS && ex[seg] && HEADER_OURS(seg) ->
        if
        :: HEADER_FIRST(seg) != want -> refuse(); stop = true
        :: else ->
            endseg = seg; at = 0;
            do
            :: at < 2 * NP && !stop ->
                read_cell(seg, at / 2, at % 2);
                if
                :: gT != 0 && gE == nw.e && gS == seg && gL == want ->
                    if
                    :: gL > nw.l ->
                        if
                        :: gT == 1 ->
                            assert(gA == hist[k + 1]); /* no gap, nothing that never was */
                            used = used | BIT(gB); wait = wait | BIT(cblk);
                            k++; cid = gA; cblk = gB;
                            if :: bv[cblk] != cid -> refuse() :: else fi
                        :: gT == 2 && gA > nw.q -> old = true
                        :: else
                        fi;
                        rlast = gL
                    :: else
                    fi;
                    want++; at++
                :: else ->
                    /* with flag 1 the next group, or the next segment */
                    if
                    :: at % 2 == 1 -> at++
                    :: else -> stop = true
                    fi
                fi
            :: else -> break
            od;
            /* a second record that is unreadable ends the chain: the next group then has a higher number */
            seg++
        fi
    od;
    if :: nw.c && want <= nw.l -> refuse() :: else fi;
    /* proof: something of this epoch, behind the end, that says the expected one was durable; and the survey */
    proof = false; seg = 0;
    do
    :: seg < NS ->
        if
        :: ex[seg] ->
            if
            :: hE[seg] == nw.e && hS[seg] == seg && seg >= endseg && hD[seg] >= want -> proof = true
            :: else
            fi;
            if :: hE[seg] > nw.e || hQ[seg] > nw.q -> old = true :: else fi;
            at = 0;
            do
            :: at < 2 * NP ->
                x = CELL(seg, 0, 0) + at;
                if
                :: cT[x] != 0 && cS[x] == seg && cE[x] == nw.e && seg >= endseg && cL[x] >= want && cD[x] >= want -> proof = true
                :: cT[x] != 0 && cS[x] == seg && cE[x] == nw.e + 1 -> old = true
                :: else
                fi;
                at++
            :: else -> break
            od
        :: else
        fi;
        seg++
    :: else -> break
    od;
    x = 0;
    if
    :: unsynced && uE == nw.e && uD >= want -> proof = true
    :: unsynced && uE > nw.e -> old = true
    :: else
    fi;
    /* A group that is gone, at the very end of a segment, while its successor was used. */
    if
    :: endseg + 1 < NS && !ex[endseg + 1] && HEADER_OURS(endseg) -> refuse()
    :: else
    fi;
#ifndef BREAK_PROOF
    if :: proof -> refuse() :: else fi;
#endif
#ifndef BREAK_STALE
    if :: old -> refuse() :: else fi;
#endif
    if :: bv[nw.r] != NODE(nw.i) || (k == nw.k && bv[nw.d] != nw.i) -> refuse() :: else fi
}
inline clear_scan() { want = 0; seg = 0; at = 0; stop = false; proof = false; old = false; gT = 0; gL = 0; gA = 0; gB = 0; gE = 0; gS = 0 }

/* The states that recovery accepts are the promise. */
inline judge() {
    assert(!refused || rotted);                 /* a crash alone never makes a store that is refused */
    if
    :: !refused ->
        assert(nw.q >= mdur);                   /* no older superblock in silence */
        if
        :: k < acked ->
            assert(rotted && rotL > 0 && !proof); /* the stated window: the newest group, before its attestation */
            acked = k
        :: else
        fi;
        assert(k < OPS + 1 && cid == hist[k])
    :: else
    fi
}
inline choose() {
    if
    :: vsup[0].q == 0 && vsup[1].q == 0 -> refuse()
    :: vsup[0].q >= vsup[1].q && vsup[0].q > 0 -> copy(nw, vsup[0])
    :: else -> copy(nw, vsup[1])
    fi
}
inline truncate_history() {
    x = k + 1;
    do :: x <= OPS -> hist[x] = 0; x++ :: else -> break od;
    x = 0
}

init {
    atomic {
        b = 0;
        do :: b < NB -> bv[b] = GARBAGE; bd[b] = GARBAGE; b++ :: else -> break od;
        b = 0; forget();
        bv[0] = NODE(0); bd[0] = NODE(0); bv[1] = 0; bd[1] = 0;
        nw.q = 1; nw.e = 1; nw.r = 0; nw.d = 1; nw.n = 1;
        copy(vsup[0], nw); copy(vsup[1], nw); copy(dsup[0], nw); copy(dsup[1], nw);
        ex[0] = true; ex[1] = true; rnf = 255; rnt = 255;
        mode = 1; serving = true; cblk = 1; used = 3; ep = 1; startlsn = 1; last = 1
    };
    do
    /* op_commit: data to a fresh block, the record to the open group, applied at once */
    :: atomic { serving && !failed && k < OPS && on < 2 && used != BIT(NB) - 1 ->
        d_step { alloc(c);
        k++; cid = k + 8 * inc; hist[k] = cid;
        write_block(c, cid);
        used = used | BIT(c); wait = wait | BIT(cblk); cblk = c;
        oT[on] = 1; oA[on] = cid; oB[on] = c; on++; appended++;
        c = 0;
#ifdef BREAK_ACK_EARLY
        acked = k
#endif
        } }
    /* wal_tick: an attestation for a last flush without a successor */
    :: d_step { serving && !failed && quiet && on == 0 && fl == 0 && atts < ATTESTS ->
        oT[0] = 3; oA[0] = 0; oB[0] = 0; on = 1; appended++; atts++ }
    /* wal_flush_locked: the open group flies; it must find a segment and that one's successor */
    :: d_step { mode == 1 && !failed && fl == 0 && on > 0 && ((cur != 255 && pos < NP) || (cur == 255 && last >= first + 1) || (cur != 255 && last >= cur + 2)) ->
        fn = on; fT[0] = oT[0]; fT[1] = oT[1]; fA[0] = oA[0]; fA[1] = oA[1]; fB[0] = oB[0]; fB[1] = oB[1];
        oT[0] = 0; oT[1] = 0; oA[0] = 0; oA[1] = 0; oB[0] = 0; oB[1] = 0; on = 0; fl = 1;
        x = 0; dmask = 0;
        do :: x < NB -> if :: bp[x] == 1 -> dmask = dmask | BIT(x) :: else fi; x++ :: else -> break od;
        x = 0;
        if :: fT[0] != 1 && fT[1] != 1 -> dmask = 0 :: else fi }
    /* the data sync has returned (wal_sync_done): wal_write_locked */
    :: atomic { mode == 1 && fl == 1 && !failed ->
#ifndef BREAK_DATA_SYNC_BEFORE_RECORD
        sync_blocks(dmask);
#endif
        dmask = 0;
#ifdef BREAK_LOG_SYNC
        land_some();
#else
        if :: unsynced -> land_some() :: else fi; /* of a run before; nobody looks at it any more */
#endif
        d_step {
        if
        :: cur == 255 -> cur = first; pos = 0
        :: cur != 255 && pos >= NP -> cur++; pos = 0
        :: else
        fi;
        unsynced = true; ug = cur; upos = pos; un = fn; uT[0] = fT[0]; uT[1] = fT[1]; uA[0] = fA[0]; uA[1] = fA[1];
        uB[0] = fB[0]; uB[1] = fB[1]; uL = durable + 1; uD = durable; uh = (pos == 0); uhQ = mq; uE = ep;
#ifdef BREAK_DURABLE_LSN
        uD = durable + fn;
#endif
        pos++; fl = 2 } }
    /* wal_write_done: durable, then acknowledged */
    :: d_step { mode == 1 && fl == 2 && !failed ->
        durable = durable + fn; quiet = (fT[0] != 3);
        x = 0;
        do
        :: x < fn ->
            if :: fT[x] == 1 && serving -> y = fA[x] % 8; acked = (y > acked -> y : acked) :: fT[x] == 2 -> mdur = (fA[x] > mdur -> fA[x] : mdur) :: else fi;
            x++
        :: else -> break
        od;
        x = 0; y = 0;
        fn = 0; fT[0] = 0; fT[1] = 0; fA[0] = 0; fA[1] = 0; fB[0] = 0; fB[1] = 0; fl = 0;
#ifndef BREAK_LOG_SYNC
        land_all();
#endif
        }
    /* the same two, failed (land_locked, wal_fail_locked): nobody is acknowledged */
    :: atomic { mode == 1 && fl == 1 && !failed && fails < FAILS && dmask != 0 -> lose_blocks(dmask); dmask = 0; fails++;
#ifdef BREAK_FAILED_SYNC
        fl = 1
#else
        failed = true
#endif
        }
    :: d_step { mode == 1 && fl == 2 && !failed && fails < FAILS -> failed = true; fails++ }

    /* ---- checkpoint_run ---- */
    /* t0 freeze */
    :: d_step { mode == 1 && !failed && ck == 0 && used != BIT(NB) - 1 && ((serving && cks < CHECKPOINTS && k > nw.k) || rs == 5) ->
        alloc(c);
        zr = c; used = used | BIT(c); zk = k; zi = cid; zd = cblk; zl = appended; c = 0;
        frz = wait | BIT(nw.r); wait = 0; ck = 1;
        if :: serving -> cks++ :: else fi }
    /* t1 wait_durable, t2 write_blocks */
    :: d_step { mode == 1 && !failed && ck == 1 &&
#ifdef BREAK_WAIT_DURABLE
        true
#else
        durable >= zl
#endif
        ->
        zg = first; zc = false;
        if
        :: cur != 255 && zl >= startlsn ->
            x = 0;
            do
            :: x < NC -> if :: cT[x] != 0 && cE[x] == ep && cS[x] == x / (2 * NP) && cL[x] == zl -> zg = x / (2 * NP); zc = true :: else fi; x++
            :: else -> break
            od;
            x = 0
        :: else
        fi;
#ifdef BREAK_WAIT_DURABLE
        if :: zl >= startlsn && !zc -> zc = true; zg = (cur == 255 -> first : cur) :: else fi;
#endif
        c = zr; write_block(c, NODE(zi)); c = 0; ck = 2;
#ifdef BREAK_RELEASE_EARLY
        used = used & ~frz
#endif
        }
    /* t3 sync_blocks */
    :: d_step { mode == 1 && !failed && ck == 2 ->
#ifndef BREAK_DATA_SYNC_BEFORE_PUBLISH
        a = BIT(NB) - 1; sync_blocks(a); a = 0;
#endif
        ck = 3 }
    :: d_step { mode == 1 && !failed && ck == 2 && fails < FAILS -> a = BIT(NB) - 1; lose_blocks(a); a = 0; fails++;
        failed = true }
    /* t4 the superblock into slot sequence mod 2 */
    :: d_step { mode == 1 && !failed && ck == 3 ->
#ifdef BREAK_SLOT
        a = 0;
#else
        a = (nw.q + 1) % 2;
#endif
        vsup[a].q = nw.q + 1; vsup[a].e = ep; vsup[a].k = zk; vsup[a].i = zi; vsup[a].l = zl; vsup[a].g = zg; vsup[a].r = zr; vsup[a].d = zd;
        vsup[a].n = startlsn; vsup[a].c = zc; psup[a] = 1; ck = 4;
#ifdef BREAK_TRIM_EARLY
        first = zg;
#endif
        a = 0 }
    /* t5 its sync: the commit point */
    :: d_step { mode == 1 && !failed && ck == 4 ->
        a = 0;
        do
        :: a < 2 -> if :: psup[a] == 1 -> copy(dsup[a], vsup[a]); psup[a] = 0; copy(nw, vsup[a]) :: else fi; a++
        :: else -> break
        od;
        a = 0; ck = 5 }
    :: d_step { mode == 1 && !failed && ck == 4 && fails < FAILS ->
        if :: psup[0] == 1 -> psup[0] = 2 :: else fi; if :: psup[1] == 1 -> psup[1] = 2 :: else fi; failed = true; fails++ }
    /* t6 mark */
    :: d_step { mode == 1 && !failed && ck == 5 && on < 2 ->
        oT[on] = 2; oA[on] = nw.q; oB[on] = 0; on++; appended++; zm = appended; ck = 6;
#ifdef BREAK_FREE_BEFORE_MARKER
        used = used & ~frz; first = zg
#endif
        }
    /* t7 release: what was frozen and freed is free, the log goes to the pool */
    :: d_step { mode == 1 && !failed && ck == 6 && durable >= zm ->
        used = used & ~frz; frz = 0; first = zg; mq = nw.q;
        zk = 0; zi = 0; zl = 0; zr = 0; zd = 0; zg = 0; zm = 0; zc = false; ck = 0;
        if
        :: rs == 5 -> rs = 0; serving = true; acked = (k > acked -> k : acked) /* shown to clients, and durable */
        :: else
        fi }

    /* wal_refill: a standby segment, from the pool when there is one (recycle_file), else new (make_file) */
    :: atomic { mode == 1 && serving && !failed && rnf == 255 && cur != 255 && last < cur + 2 && last + 1 < NS ->
        d_step { a = 0;
        do :: a < first && !ex[a] -> a++ :: else -> break od;
        b = a; a = 0;
        if
        :: b < first && mq > 0 -> c = last + 1; move_segment(b, c); rnf = b; rnt = c
        :: else -> ex[last + 1] = true; last++
        fi;
        b = 0; c = 0 } }
    :: d_step { mode == 1 && !failed && rnf != 255 -> last = rnt; rnf = 255; rnt = 255 } /* sync_dir */

    /* ---- the crash ---- */
    :: atomic { mode == 1 && crashes < CRASHES && !refused ->
        crashes++; inc++;
        if
        :: power_cut()
        :: skip; kill() /* skip: an option must not begin with an else of its own */
        fi;
        forget();
        if :: rots < ROTS -> if :: rot() :: skip fi :: else fi }

    /* ---- recovery_load, recovery_replay: reading, and replay in memory; writes nothing ---- */
    :: atomic { mode == 0 && !refused ->
        d_step {
        choose();
        if
        :: !refused -> scan()
        :: else
        fi;
        judge();
        if
        :: !refused ->
            truncate_history();
            durable = rlast; appended = rlast; mode = 1; rs = 1;
#ifdef BREAK_EPOCH
            ep = nw.e; startlsn = rlast + 1;
#else
            ep = nw.e + 1; startlsn = rlast + 1;
#endif
            first = endseg + 1
        :: else
        fi;
        clear_scan() } }
    /* r1: a file with the chosen superblock in both slots, renamed over the old one; the file is synced before the rename */
#ifdef BREAK_R1_IN_PLACE
    :: d_step { mode == 1 && rs == 1 -> copy(vsup[0], nw); copy(vsup[1], nw); psup[0] = 1; psup[1] = 1; rs = 3 }
    :: d_step { mode == 1 && rs == 3 -> copy(dsup[0], vsup[0]); copy(dsup[1], vsup[1]); psup[0] = 0; psup[1] = 0; rs = 4 }
#else
#ifdef BREAK_R1_NONE
    :: d_step { mode == 1 && rs == 1 -> rs = 4 }
#else
    :: d_step { mode == 1 && rs == 1 -> rs = 2 }
    :: d_step { mode == 1 && rs == 2 -> copy(vsup[0], nw); copy(vsup[1], nw); copy(dsup[0], nw); copy(dsup[1], nw); psup[0] = 0; psup[1] = 0; rs = 4 }
#endif
#endif
    /* r2: segments N and N + 1 */
    :: atomic { mode == 1 && rs == 4 && first + 1 < NS -> ex[first] = true; ex[first + 1] = true; last = first + 1; cur = 255; rs = 5;
        rnf = 255; rnt = 255 }
    /* r3 is checkpoint_run above, with rs 5 */
    :: refused -> break
    :: crashes == CRASHES && serving && k == OPS && ck == 0 && fl == 0 && on == 0 -> break
    od
}
