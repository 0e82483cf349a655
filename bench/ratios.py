"""The ratios of a run, by name. docs/benchmarks.md says what each means."""

from bench.measures import Ratio

_P99 = "p99_ms"

RATIOS = {
    # against a bare Flask view with the same SELECT under gunicorn's own worker
    "verify_vs_baseline": Ratio("verify@8", "flask_stock@8"),
    "verify_p99_vs_baseline": Ratio("verify@8", "flask_stock@8", _P99),
    "verify_1_vs_baseline": Ratio("verify@1", "flask_stock@1"),
    "verify_64_vs_baseline": Ratio("verify@64", "flask_stock@64"),
    "verify_64_p99_vs_baseline": Ratio("verify@64", "flask_stock@64", _P99),
    "verify_256_vs_baseline": Ratio("verify@256", "flask_stock@256"),
    # against other floors
    "verify_vs_baseline_same_worker": Ratio("verify@8", "flask_our_worker@8"),
    "verify_64_vs_baseline_same_worker": Ratio("verify@64", "flask_our_worker@64"),
    "verify_vs_raw_wsgi_same_worker": Ratio("verify@8", "raw_wsgi_our_worker@8"),
    "verify_64_vs_raw_wsgi_same_worker": Ratio("verify@64", "raw_wsgi_our_worker@64"),
    "verify_vs_hello": Ratio("verify@8", "hello_stock@8"),
    "verify_64_vs_hello": Ratio("verify@64", "hello_stock@64"),
    "verify_vs_hello_same_worker": Ratio("verify@8", "hello_our_worker@8"),
    "verify_vs_pgbench": Ratio("verify@8", "pgbench@8"),
    # against peers
    "verify_vs_drf_api_key": Ratio("verify@8", "drf_api_key@8"),
    "verify_vs_better_auth": Ratio("verify@8", "better_auth@8"),
    "verify_vs_oidc_provider": Ratio("verify@8", "oidc_provider@8"),
    "verify_vs_django_oauth_toolkit": Ratio("verify@8", "django_oauth_toolkit@8"),
    "verify_64_vs_drf_api_key": Ratio("verify@64", "drf_api_key@64"),
    "verify_64_vs_better_auth": Ratio("verify@64", "better_auth@64"),
    "verify_64_vs_oidc_provider": Ratio("verify@64", "oidc_provider@64"),
    "verify_64_vs_django_oauth_toolkit": Ratio("verify@64", "django_oauth_toolkit@64"),
    # a scope in the path, and restrictions, against neither
    "scoped_vs_good": Ratio("scoped@8", "verify@8"),
    "restricted_vs_good": Ratio("restricted@8", "verify@8"),
    "scoped_64_vs_good": Ratio("scoped@64", "verify@64"),
    "restricted_64_vs_good": Ratio("restricted@64", "verify@64"),
    # invalid pairs against valid ones
    "refused_vs_good": Ratio("wrong@8", "verify@8"),
    "unknown_vs_good": Ratio("unknown@8", "verify@8"),
    "refused_64_vs_good": Ratio("wrong@64", "verify@64"),
    "unknown_64_vs_good": Ratio("unknown@64", "verify@64"),
    # many credentials against a thousand
    "verify_100k_vs_1k": Ratio("verify_100k@8", "verify_1k@8"),
    "verify_1m_vs_1k": Ratio("verify_1m@8", "verify_1k@8"),
    "verify_10m_vs_1k": Ratio("verify_10m@8", "verify_1k@8"),
    # two processes against one
    "verify_2_vs_1_processes": Ratio("verify_2_processes@8", "verify_1_processes@8"),
    "verify_64_2_vs_1_processes": Ratio("verify_2_processes@64", "verify_1_processes@64"),
    "verify_2_processes_vs_baseline": Ratio("verify_2_processes@8", "flask_stock_2_processes@8"),
    "verify_64_2_processes_vs_baseline": Ratio(
        "verify_2_processes@64", "flask_stock_2_processes@64"
    ),
    # this version against the one in BEFORE
    "verify_vs_before": Ratio("verify@8", "verify_before@8"),
    "verify_p99_vs_before": Ratio("verify@8", "verify_before@8", _P99),
    "verify_64_vs_before": Ratio("verify@64", "verify_before@64"),
    "wrong_vs_before": Ratio("wrong@8", "wrong_before@8"),
    "wrong_64_vs_before": Ratio("wrong@64", "wrong_before@64"),
    "unknown_vs_before": Ratio("unknown@8", "unknown_before@8"),
    "list_1000_vs_before": Ratio("list_1000@8", "list_1000_before@8"),
    # credentials issued against bcrypt alone, both on all cores
    "issue_vs_bcrypt": Ratio("issue", "bcrypt"),
    # the time of a list against json_agg's time for the same list: more is slower
    "list_10_vs_json_agg": Ratio("json_agg_10@8", "list_10@8"),
    "list_100_vs_json_agg": Ratio("json_agg_100@8", "list_100@8"),
    "list_1000_vs_json_agg": Ratio("json_agg_1000@8", "list_1000@8"),
}
