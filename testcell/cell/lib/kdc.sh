# shellcheck shell=bash
# The KDC lives in server 1's network namespace. It serves a second realm, whose users are known to the first one.

kdc_config() {
    cat >"$CONF/krb5.conf" <<CONF
[libdefaults]
    default_realm = $REALM
    dns_lookup_kdc = false
    dns_lookup_realm = false
    dns_canonicalize_hostname = false
    rdns = false
    udp_preference_limit = 1
[realms]
    $REALM = {
        kdc = $DB_ADDR
    }
    $OTHER_REALM = {
        kdc = $DB_ADDR
    }
[domain_realm]
    $CELL = $REALM
    .$CELL = $REALM
CONF
    cat >"$DIR/kdc/kdc.conf" <<CONF
[kdcdefaults]
    kdc_listen = 88
    kdc_tcp_listen = 88
[realms]
    $REALM = {
        database_name = $DIR/kdc/principal
        key_stash_file = $DIR/kdc/stash
        acl_file = $DIR/kdc/kadm5.acl
        supported_enctypes = aes256-cts:normal
        master_key_type = aes256-cts
        max_life = 24h
        max_renewable_life = 7d
    }
    $OTHER_REALM = {
        database_name = $DIR/kdc/other
        key_stash_file = $DIR/kdc/other-stash
        supported_enctypes = aes256-cts:normal
        master_key_type = aes256-cts
    }
[logging]
    kdc = FILE:$DIR/kdc/kdc.log
CONF
}

kdc_up() {
    local user keytabs=$DIR/keytabs
    mkdir -p "$DIR/kdc" "$keytabs"
    kdc_config
    export KRB5_CONFIG=$CONF/krb5.conf KRB5_KDC_PROFILE=$DIR/kdc/kdc.conf
    {
        timeout 20 kdb5_util create -s -r "$REALM" -P "$NAME"
        {
            echo "addprinc -randkey -e aes256-cts:normal afs/$CELL"
            echo "ktadd -k $keytabs/afs.keytab -norandkey afs/$CELL"
            for user in admin alice bob; do
                echo "addprinc -pw $user-password $user"
                echo "ktadd -k $keytabs/$user.keytab -norandkey $user"
            done
            # The others show that a KDC may also answer at once.
            echo "modprinc +requires_preauth alice"
            echo "addprinc -pw between krbtgt/$REALM@$OTHER_REALM"
        } | timeout 20 kadmin.local -r "$REALM"
        timeout 20 kdb5_util create -s -r "$OTHER_REALM" -P "$NAME"
        {
            echo "addprinc -pw between krbtgt/$REALM@$OTHER_REALM"
            echo "addprinc -pw carol-password carol"
            echo "ktadd -k $keytabs/carol.keytab -norandkey carol"
        } | timeout 20 kadmin.local -r "$OTHER_REALM"
    } >"$DIR/kdc/setup.log" 2>&1
    # kadmin.local exits 0 whatever its commands did.
    [ -s "$keytabs/bob.keytab" ] && [ -s "$keytabs/carol.keytab" ] || die "the KDC's database could not be made"

    nsenter --net="/run/netns/$NAME-s1" setsid krb5kdc -n -r "$REALM" -r "$OTHER_REALM" \
        </dev/null >>"$DIR/kdc/start.log" 2>&1 {LOCK}>&- &
    record_pid kdc $!
    poll 10 env KRB5CCNAME="MEMORY:" timeout 3 nsenter --net="/run/netns/$NAME-s1" \
        kinit -k -t "$keytabs/admin.keytab" admin || die "the KDC does not answer"
}
