"""The words of SQL by what they do in a sentence of it.

Token classes, as they stand in fingerprints:

    n number    s string    v variable  w any word   0 null, true, current_user ...
    f call of an unknown function       F call of a function that reads data
    D call of a function that waits, reads files or leaks by errors
    L and/or    C = < >     c like, in  A + - * /    N not      X exists, any
    U union     S select    T other verbs of statements         O clauses after a condition
    E case, when ...        ( ) , ; .   - comment    ? what SQL does not know
"""

from __future__ import annotations

from typing import Final

_CLASSES: Final = {
    "L": "and or xor",
    "c": "like rlike regexp ilike glob in between is similar sounds match",
    "A": "div mod collate binary",
    "N": "not",
    "X": "exists any some",
    "0": "null true false default current_user session_user system_user current_date unknown "
    "sysdate current_timestamp rownum",
    "U": "union except intersect minus",
    "S": "select",
    "T": "insert update delete drop create alter exec execute declare waitfor shutdown truncate "
    "replace merge grant revoke set begin load copy call handler backup restore rename use do "
    "print pragma attach kill if vacuum commit rollback deallocate prepare bulk dbcc reconfigure",
    "O": "order group having limit where procedure into from offset fetch for",
    "E": "case when then else end",
    "q": "all distinct distinctrow top unique",
    "a": "as escape asc desc",
}

WORDS: Final[dict[str, str]] = {
    word: letter for letter, words in _CLASSES.items() for word in words.split()
}

_DANGEROUS: Final = (
    "sleep benchmark pg_sleep pg_sleep_for pg_sleep_until load_file extractvalue updatexml "
    "xp_cmdshell xp_dirtree xp_fileexist xp_regread xp_subdirs receive_message get_host_address "
    "get_host_name sn drithsx gtid_subset gtid_subtract randomblob zeroblob load_extension "
    "query_to_xml database_to_xml xmltype openrowset opendatasource openquery pg_read_file "
    "pg_ls_dir lo_import lo_export dblink json_keys name_const geometrycollection polygon "
    "multipoint linestring multilinestring multipolygon st_latfromgeohash sys_eval sys_exec "
    "fn_xe_file_target_read_file ordsys httpuritype utl_inaddr send_request dbms_lock "
    "generate_series sqlite_version get_lock release_lock regexp_substring group_concat "
    "sys_context dbms_xmlgen getxmltype xp_loginconfig sp_oacreate sp_password xp_availablemedia "
    "sp_executesql xp_regwrite xp_servicecontrol xp_enumdsn xp_ntsec_enumdomains "
    "master_pos_wait current_setting has_dbaccess is_srvrolemember fn_listextendedproperty "
    "make_set elt pg_client_encoding crypt_key"
)
DANGEROUS: Final = frozenset(_DANGEROUS.split())

_DATA: Final = (
    "char chr nchar ascii ord substring substr mid left right concat concat_ws version database "
    "schema user current_user session_user system_user hex unhex if iif ifnull isnull nvl rand "
    "floor count cast convert try_convert exp row_count length char_length len datalength lower "
    "upper lcase ucase md5 sha1 sha password now sysdate db_name host_name object_id col_name "
    "suser_name user_name quotename nullif coalesce conv bin reverse repeat lpad rpad replace "
    "stuff strcmp instr locate position find_in_set interval least greatest min max sum avg "
    "string_agg array_agg listagg xmlagg json_extract to_char to_number unicode field row "
    "schema_name suser_sname current_database typeof quote aes_encrypt encode decode "
    "rawtohex translate json_arrayagg uuid connection_id last_insert_id "
    "pi abs sign mod power sqrt ceil round exists to_base64 from_base64 tochar cot"
)
DATA: Final = frozenset(_DATA.split())
_OWNERS_WORDS: Final = (
    "master dbo sys dbms_pipe dbms_lock dbms_session utl_inaddr utl_http ctxsys drithsx "
    "sysmaster dbms_xmlgen dbms_ldap dbms_utility msdb pg_catalog dbms_xslprocessor ordsys"
)

OWNERS: Final = frozenset(_OWNERS_WORDS.split())
"""What may stand before the dot of a dangerous function; `time.sleep` is somebody's program."""
_OBJECTS_WORDS: Final = (
    "table database view index user schema procedure proc function column trigger login role "
    "tablespace sequence constraint temporary or extension cast assembly certificate"
)

OBJECTS: Final = frozenset(_OBJECTS_WORDS.split())

_STOPS_WORDS: Final = (
    "the a an this that these those your our my his her its their some each every any one two "
    "three both either neither whom which what within among between there here home above "
    "below another other others various many several all me you him us them it to at by with "
    "on of"
)
# Words of English that cannot name a table, so that "select one from the menu" stays English.
STOPS: Final = frozenset(_STOPS_WORDS.split())

PROCEDURES: Final = ("xp_", "sp_", "master", "dbms_", "utl_", "sys.", "immediate")
_SECRETS_WORDS: Final = (
    "pg_shadow pg_authid sysxlogins syslogins dba_users sysibm syscat sysusers all_users "
    "sqlite_master sysobjects syscolumns sysdatabases information_schema all_tables "
    "v$version mysql pg_catalog all_tab_columns user_tables pg_tables pg_user v$instance"
)

SECRETS: Final = frozenset(_SECRETS_WORDS.split())
"""Tables of catalogues that nobody asks a public service for."""
_SELF_WORDS: Final = (
    "version user current_user session_user system_user database current_database "
    "sqlite_version host_name db_name pg_read_file load_file"
)

SELF: Final = frozenset(_SELF_WORDS.split())
"""What a statement of one word asks the server about itself."""
